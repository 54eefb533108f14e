"""`bugs`: the catalogue of known mistakes on a terminal, as JSON and as pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from conformance.cli import bugs as bugs_command
from conformance.selftest import catalogue, catalogue_pages
from reference import mutants
from reference.mutants import MUTANTS
from tests.support.commands import Call
from tests.support.diagnoses import FEW, MUTANT
from tests.support.installed import FIXTURES
from tests.support.runs import one_line, run_command

WORDS: Mapping[str, str] = {
    "symptom": MUTANT.symptom,
    "cure": MUTANT.cure,
    "first seen": "self_attn.q_rope, full layers",
}


def test_the_known_mistakes_are_listed_for_grep_and_cut() -> None:
    done = run_command("bugs")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [tuple(line.split("\t")) for line in done.stdout.splitlines()]
    assert rows == [(mutant.id, mutant.area, mutant.does) for mutant in MUTANTS.values()]
    assert len(rows) > 100


def test_the_known_mistakes_as_json(call: Call) -> None:
    code, out, err = call("bugs", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"id": mutant.id, "area": mutant.area, "does": mutant.does} for mutant in FEW.values()]


@pytest.mark.parametrize("width", [40, 10])
def test_a_narrow_terminal_cuts_no_id(call: Call, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bugs_command, "out", Console(force_terminal=True, width=width))
    code, out, err = call("bugs")
    assert (code, err) == (0, "")
    for mutant in FEW.values():
        assert f"\x1b[1m{mutant.id}\x1b[0m ({mutant.area})\n  {mutant.does}\n" in out


def test_one_mistake_is_shown(call: Call) -> None:
    code, out, err = call("bugs", "show", MUTANT.id)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [f"{MUTANT.id} (RoPE)", f"  {MUTANT.does}"]
    assert {f"{name}: {text}" for name, text in WORDS.items()} <= set(lines)
    assert {f"see {url}" for url in MUTANT.urls} <= set(lines)
    hunting = [case.id for case in FIXTURES.cases() if MUTANT.id in case.hunts]
    assert hunting
    assert lines[-2:] == [
        f"try: pytest conformance/ --cases '{hunting[0]}'",
        f"cases that hunt it: {', '.join(hunting)}",
    ]


def test_what_changes_nothing_says_why(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "MUTANTS", MUTANTS)
    mutant = MUTANTS["rope-angles-low-precision"]
    _, out, _ = call("bugs", "show", mutant.id)
    assert mutant.equivalent_in
    for profile, proof in mutant.equivalent_in.items():
        assert f"changes nothing in {profile}: {proof}\n" in out


def test_one_mistake_as_json(call: Call) -> None:
    code, out, err = call("bugs", "show", MUTANT.id, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == catalogue.facts(MUTANT, FIXTURES)


@pytest.mark.parametrize(
    ("typo", "hint"),
    [
        ("prop-rope-denomintor", "did you mean prop-rope-denominator?"),
        ("rope-full", "did you mean rope-full-rotation?"),
        ("xyz", "see `gemma4-conformance bugs`"),
    ],
)
def test_a_typo_is_given_a_hint(call: Call, typo: str, hint: str) -> None:
    code, out, err = call("bugs", "show", typo)
    assert (code, out) == (2, "")
    assert one_line(err) == f"bugs show: got '{typo}', expected the id of a known mistake; {hint}"


def test_the_catalogue_as_pages(tmp_path: Path) -> None:
    done = run_command("bugs", "--markdown", str(tmp_path / "mistakes"))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'mistakes' / 'index.md'}\n", "")
    written = {page.name: page.read_text(encoding="utf-8") for page in (tmp_path / "mistakes").iterdir()}
    assert written == catalogue_pages.pages(FIXTURES)
    index = written["index.md"].splitlines()
    assert index[0] == "# Known mistakes in ports of Gemma 4"
    areas = [line.removeprefix("## ") for line in index if line.startswith("## ")]
    assert areas == list(dict.fromkeys(mutant.area for mutant in MUTANTS.values()))  # no area twice
    assert [line.split("]")[0].removeprefix("| [") for line in index if line.startswith("| [")] == list(MUTANTS)
    row = f"| [{MUTANT.id}](rope.md#{MUTANT.id}) | {MUTANT.does} | self_attn.q_rope, full layers |"
    assert row in index
    lines = [line for area in areas for line in written[catalogue_pages.page_of(area)].splitlines()]
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == list(MUTANTS)
    assert f"* Cure: {MUTANT.cure}" in lines


def test_pages_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "mistakes").write_text("a file")
    done = run_command("bugs", "--markdown", str(tmp_path / "mistakes"))
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith(f"{tmp_path / 'mistakes'}: ")
