"""What the docs say of the suite is what the last self-tests said, and these were of these fixtures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.judging.levels import LEVELS
from conformance.selftest.local_score import local_scores
from conformance.selftest.tables import (
    DOCUMENTS,
    KILL_MATRIX,
    LOCAL_MATRIX,
    LOCAL_TRIALS,
    TRIALS,
    read_results,
    tables_of,
    with_results,
)
from gemma4_contract import Fixtures
from gemma4_contract.judged import chained_digest, judged_digest
from reference.mutants import MUTANTS
from tests.support import ROOT
from tests.support.markdown import read
from tests.support.runs import run

JUDGING = read("docs/JUDGING.md")
TABLES = {
    "mutation-score": "docs/JUDGING.md",
    "self-test": "docs/JUDGING.md",
    "local-score": "docs/NUMERICS.md",
    "local-self-test": "docs/NUMERICS.md",
}
AGAIN = f"run `gemma4-conformance self-test --honest --save {TRIALS}` and `python -m conformance.selftest.tables`"


def result(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return found


def test_the_self_tests_were_of_these_fixtures() -> None:
    assert result(TRIALS)["fixtures"] == chained_digest(Fixtures()), AGAIN
    for path in (LOCAL_TRIALS, LOCAL_MATRIX):
        assert result(path)["fixtures"] == judged_digest(Fixtures()), f"{AGAIN}, with --local to {path}"


@pytest.mark.parametrize("path", [TRIALS, LOCAL_TRIALS], ids=str)
def test_nobody_honest_was_accused(path: Path) -> None:
    trials = result(path)
    assert trials["accused"] == 0
    assert [trial for trial in trials["variants"] if trial["accused"]] == []
    assert {trial["profile"] for trial in trials["variants"]} == set(Fixtures().profiles)


def test_the_local_judgement_sees_what_it_should() -> None:
    for score in local_scores(read_results(ROOT, Fixtures(), "local"), MUTANTS):
        if score.profile in ("f32", "bf16"):
            assert len(score.at_the_node) >= 0.95 * len(score.seen), score.profile


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_the_self_test_s(name: str) -> None:
    text = read(TABLES[name])
    (block,) = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    assert block == tables_of(ROOT)[name], AGAIN


def spoilt(text: str) -> str:
    """A document with other numbers in its headline and in the tables of results."""
    text = text.replace("**0 of 15**", "**9 of 99**")
    for name in TABLES:
        before, begin, rest = text.partition(f"<!-- {name} -->")
        text = before + begin + rest.replace("| f64 |", "| f99 |", 1)
    return text


@pytest.mark.slow
def test_the_results_are_written_where_they_were(tmp_path: Path) -> None:
    """With other numbers before, all of them are put right."""
    for name in map(str, (*DOCUMENTS, KILL_MATRIX, TRIALS, LOCAL_MATRIX, LOCAL_TRIALS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = read(name)
        if name.endswith(".md"):
            text = spoilt(text)
            assert text != read(name)
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run([sys.executable, "-m", "conformance.selftest.tables"], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in map(str, DOCUMENTS):
        assert (tmp_path / name).read_text(encoding="utf-8") == read(name)


def test_a_document_without_results_stays_as_it_is() -> None:
    text = read("docs/PROMPTS.md")
    assert with_results(text, "no number", tables_of(ROOT)) == text


def test_its_levels_are_those_of_the_suite() -> None:
    rows = re.findall(r"^\| (L\d) \| (.*) \|$", JUDGING, re.MULTILINE)
    assert dict(rows) == dict(LEVELS)
