"""The page of a report: its heat maps, its card, and what a browser says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from conformance.adapters.base import Hello, Request
from conformance.adapters.mutant import MutantAdapter
from conformance.diagnosis.whole_report import report_as_text
from conformance.judging.judge import Judge
from conformance.reporting import jsonl as report
from conformance.reporting.jsonl import CaseLine, RunLine, TapLine
from conformance.reporting.page.changes import changes
from conformance.reporting.page.heat_map import draw, heat_maps
from conformance.reporting.page.page import write_page
from gemma4_contract import FixtureError
from gemma4_contract.judged import judged_digest
from gemma4_contract.tensors import Array
from reference.mutants import MUTANTS
from tests.support.installed import FIXTURES
from tests.support.runs import run_command

MISTAKE = "prop-rope-denominator"
CASES = [case_id for case_id in FIXTURES.case_ids if case_id.startswith("forward/e2b-mini/uniform-l9/")]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
RUN = RunLine(
    impl="port:./x <b>",
    implementation="my <port>",
    version="1",
    language="C++",
    device="cpu",
    profile="f32",
    fixtures=judged_digest(FIXTURES),
    products_error=None,
)


class LogitsAlone(MutantAdapter):
    """A port that offers no other tap."""

    def run(self, request: Request) -> dict[str, Array]:
        return {name: x for name, x in super().run(request).items() if name == "logits"}

    def hello(self) -> Hello:
        return super().hello()


def reported(directory: Path, adapter: MutantAdapter, cases: Sequence[str] = CASES) -> Path:
    report.start(directory, RUN)
    judge = Judge(FIXTURES, adapter, "f32")
    for case_id in cases:
        report.append(directory, report.case_line(directory, judge.judge(case_id), None))
    return directory


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with one planted mistake."""
    directory = reported(tmp_path_factory.mktemp("page") / "report", MutantAdapter(MUTANTS[MISTAKE], "split"))
    return write_page(FIXTURES, directory, report_as_text(FIXTURES, directory, None))


def test_the_card_names_the_mistake(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (card,) = re.findall(r'<div class="card" id="diagnosis">(.*?)</pre>', text, re.DOTALL)
    assert f"looks like: {MISTAKE} (RoPE)" in card
    assert "reproduce: pytest conformance/ --port" in card
    assert '<div class="scroll" id="positions"><svg' in text


def test_there_is_a_cell_for_every_tap_and_layer(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    _, lines = report.read(page.parent)
    (heat_map,) = heat_maps(lines.values())
    cells = re.findall(r'id="cell e2b-mini (\S+) (\d+)"', text)
    assert len(cells) == len(set(cells)) == heat_map.layers * len(heat_map.taps)
    assert {tap for tap, _ in cells} >= {"self_attn.q_rope", "per_layer_projection", "output"}


def test_the_page_needs_nothing_else_and_is_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text) < 2_000_000
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []
    assert "<script" not in text


def test_what_a_port_says_is_text_and_no_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "my &lt;port&gt;" in text
    assert "<port>" not in text


def test_a_browser_shows_it_without_a_word(page: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=2000")
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60, check=False
    )
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('id="cell e2b-mini ') == page.read_text(encoding="utf-8").count('id="cell e2b-mini ')
    assert f"looks like: {MISTAKE}" in done.stdout


@pytest.mark.slow
def test_logits_alone_give_a_verdict_and_a_diagnosis(tmp_path: Path) -> None:
    directory = reported(tmp_path / "report", LogitsAlone(MUTANTS[MISTAKE], "split"))
    told = report_as_text(FIXTURES, directory, None)
    assert "first divergence: logits" in told
    assert f"looks like: {MISTAKE}" in told
    text = write_page(FIXTURES, directory, told).read_text(encoding="utf-8")
    assert "Error over tolerance" not in text  # no tap of a layer was offered


def test_a_map_is_grey_where_nothing_was_offered_and_red_where_there_is_no_ratio() -> None:
    taps = [TapLine(name="model.layers.0.output", status="pass", ratio=0.1)]
    taps.append(TapLine(name="model.layers.2.output", status="fail", ratio=None, fault="not finite"))
    taps.append(TapLine(name="model.layers.3.output", status="undecidable", ratio=None))
    (heat_map,) = heat_maps([forward_line("no-cache", "fail", taps)])
    assert (heat_map.layers, heat_map.taps) == (4, ("output",))
    svg = draw(heat_map)
    colours = re.findall(r'<g id="cell m output (\d)">.*?fill: (#\w+)', svg, re.DOTALL)
    assert [layer for layer, _ in colours] == ["0", "1", "2", "3"]
    green, grey, red, lightest = (tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for _, colour in colours)
    assert green[1] > green[0]
    assert len(set(grey)) == 1
    assert red[0] > 2 * red[1]
    assert lightest[1] > lightest[0]
    assert draw(heat_map) == svg


def test_the_worst_of_all_cases_is_drawn() -> None:
    lines = [
        forward_line(plan, "pass", [TapLine(name="model.layers.0.output", status="pass", ratio=ratio)])
        for plan, ratio in (("a", 0.2), ("b", 0.7), ("c", 0.1))
    ]
    (heat_map,) = heat_maps([*lines, line("module/rope/x", "pass")])
    assert heat_map.ratios == {("output", 0): 0.7}


def test_taps_stand_in_the_order_of_execution_whatever_a_case_asks_for() -> None:
    names = ("self_attn.q_rope", "self_attn.context"), ("self_attn.q_rope", "self_attn.probs", "self_attn.context")
    lines = [
        forward_line(
            str(number),
            "pass",
            [TapLine(name=f"model.layers.0.{name}", status="pass", ratio=0.1) for name in one],
        )
        for number, one in enumerate(names)
    ]
    assert [heat_map.taps for heat_map in heat_maps(lines)] == [names[1]]


@pytest.mark.slow
def test_the_command_writes_it_again(page: Path) -> None:
    before = page.read_bytes()
    page.unlink()
    done = run_command("report", str(page.parent))
    assert (done.returncode, done.stdout) == (0, f"{page}\n")
    assert page.read_bytes() == before


def line(case: str, outcome: str, note: str = "") -> CaseLine:
    return CaseLine(case=case, kind="rope", level="L1", outcome=outcome, note=note)  # type: ignore[arg-type]


def forward_line(plan: str, outcome: str, taps: list[TapLine]) -> CaseLine:
    case = f"forward/m/x/{plan}"
    return CaseLine(case=case, kind="forward", level="L2", model="m", outcome=outcome, taps=taps)  # type: ignore[arg-type]


def test_changes_are_what_ends_in_another_way_the_worse_first() -> None:
    old = {
        name: line(name, outcome)
        for name, outcome in zip("abcdf", ("fail", "pass", "pass", "pass", "fail"), strict=True)
    }
    new = {
        name: line(name, outcome)
        for name, outcome in zip("abcef", ("pass", "error", "pass", "fail", "error"), strict=True)
    }
    found = [(change.case, change.before, change.now, change.worse) for change in changes(old, new)]
    assert found == [
        ("b", "pass", "error", True),
        ("e", "-", "fail", True),
        ("a", "fail", "pass", False),
        ("d", "pass", "-", False),
        ("f", "fail", "error", False),
    ]
    assert changes(old, old) == []


def test_positions_are_shown_of_a_whole_pass_rather_than_of_a_layer(tmp_path: Path) -> None:
    layer, whole = "layer/e2b-mini/full-own", CASES[0]
    directory = reported(tmp_path, MutantAdapter(MUTANTS[MISTAKE], "split"), [layer, whole])
    text = write_page(FIXTURES, directory, "told").read_text(encoding="utf-8")
    assert f"self_attn.q_rope in {whole}, by position:" in text


def test_a_long_list_of_failures_ends_and_advice_is_shown(tmp_path: Path) -> None:
    report.start(tmp_path, RUN)
    for number in range(252):
        report.append(tmp_path, line(f"module/none/{number}", "fail"))
    report.append(tmp_path, line("module/none/low", "advice", "keep the product in float32"))
    text = write_page(FIXTURES, tmp_path, "").read_text(encoding="utf-8")
    assert "... and 52 more" in text
    assert "keep the product in float32" in text


@pytest.mark.slow
def test_a_page_tells_what_changed(page: Path, tmp_path: Path) -> None:
    other = tmp_path / "earlier"
    report.start(other, RUN)
    report.append(other, line(CASES[0], "pass"))
    before = page.read_bytes()
    done = run_command("report", str(page.parent), "--compare", str(other))
    text = page.read_text(encoding="utf-8")
    page.write_bytes(before)
    assert done.returncode == 0
    (table,) = re.findall(r'<table id="changes">(.*?)</table>', text, re.DOTALL)
    assert f"<tr><td>{CASES[0]}</td><td>pass</td><td>fail</td></tr>" in table
    assert table.count("<tr>") == 1 + len(CASES)
    assert "Every case ends as it did" in write_page(FIXTURES, other, "", other).read_text(encoding="utf-8")


def test_no_report_is_one_line(tmp_path: Path) -> None:
    done = run_command("report", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{tmp_path}/report.jsonl: got No such file or directory, expected a report")
    with pytest.raises(FixtureError):
        write_page(FIXTURES, tmp_path, "")
