"""The picture of a report that failed, as `report DIR --picture FILE.svg` draws it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.reporting import jsonl as report
from conformance.reporting.jsonl import CaseLine, RunLine, TapLine
from conformance.reporting.page.picture import draw_picture
from gemma4_contract import FixtureError
from tests.support.runs import one_line, run_command

RUN = RunLine(
    impl="port:./x",
    implementation="my <port>",
    version="1",
    language="C++",
    device="cpu",
    profile="bf16",
    fixtures="",
    products_error=None,
)


def line(model: str, ratios: dict[str, float], first: str | None, outcome: str = "fail") -> CaseLine:
    taps = [
        TapLine(name=name, status="fail" if ratio > 1 else "pass", ratio=ratio, fault="")
        for name, ratio in ratios.items()
    ]
    case = f"forward/{model}/x/no-cache"
    where = {"kind": "forward", "level": "L2", "model": model}
    return CaseLine(case=case, **where, outcome=outcome, taps=taps, first_divergence=first)  # type: ignore[arg-type]


GOOD = line("good", {"model.layers.0.output": 0.1}, None, "pass")
LOGITS = line("logits", {"model.layers.0.output": 0.1, "logits": 9.0}, "logits")
BAD = line("bad", {f"model.layers.{i}.output": 10.0 ** (i - 2) for i in range(4)}, "model.layers.3.output")


def test_the_map_is_of_the_model_that_fails_in_a_layer_with_the_place_marked() -> None:
    svg = draw_picture(RUN, [GOOD, LOGITS, BAD])
    assert re.findall(r'id="cell (\S+) (\S+) (\d)"', svg) == [("bad", "output", str(layer)) for layer in range(4)]
    assert re.findall(r'id="first divergence (.*?)"', svg) == ["output 3"]
    assert "bad in bf16: my &lt;port&gt;" in svg
    assert draw_picture(RUN, [GOOD, LOGITS, BAD]) == svg


@pytest.mark.parametrize("lines", [[], [GOOD], [GOOD, LOGITS]])
def test_a_report_without_a_place_to_mark_has_no_picture(lines: list[CaseLine]) -> None:
    with pytest.raises(FixtureError, match="got a report in which no whole forward pass fails at a tap of a layer"):
        draw_picture(RUN, lines)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    report.start(tmp_path / "report", RUN)
    for one in (GOOD, BAD):
        report.append(tmp_path / "report", one)
    return tmp_path / "report"


def test_the_command_draws_it_and_no_page(directory: Path, tmp_path: Path) -> None:
    file = tmp_path / "out" / "picture.svg"
    done = run_command("report", str(directory), "--picture", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}\n", "")
    assert file.read_text(encoding="utf-8") == draw_picture(RUN, [GOOD, BAD])
    assert [path.name for path in directory.iterdir()] == ["report.jsonl"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--picture", "x.png"), "--picture: got x.png, expected a name that ends in .svg"),
        (("--picture", "x.svg", "--compare", "old"), "report: got --picture with --compare, expected one of them"),
    ],
)
def test_other_options_are_one_line(directory: Path, options: tuple[str, ...], told: str) -> None:
    done = run_command("report", str(directory), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith(told)
