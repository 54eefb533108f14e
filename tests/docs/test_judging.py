"""What docs/JUDGING.md says of the suite is what the last self-tests said, and these were of these fixtures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from conformance.judging.levels import LEVELS
from conformance.selftest.specificity import as_table
from conformance.selftest.tables import TRIALS, read_scores, read_trials, with_results
from gemma4_contract import Fixtures
from gemma4_contract.judged import judged_digest
from tests.support import ROOT
from tests.support.markdown import read
from tests.support.runs import run

JUDGING = read("docs/JUDGING.md")
RESULT = json.loads((ROOT / TRIALS).read_text(encoding="utf-8"))
AGAIN = f"run `gemma4-conformance self-test --honest --save {TRIALS}` and `python -m conformance.selftest.tables`"


def test_the_self_test_was_of_these_fixtures() -> None:
    assert RESULT["fixtures"] == judged_digest(Fixtures()), AGAIN


def test_nobody_honest_was_accused() -> None:
    assert RESULT["accused"] == 0
    assert [trial for trial in RESULT["variants"] if trial["accused"]] == []


def test_its_table_is_the_self_test_s() -> None:
    (block,) = re.findall(r"<!-- self-test -->\n(.*?)\n<!-- /self-test -->", JUDGING, re.DOTALL)
    assert block == as_table(read_trials(ROOT)), AGAIN


@pytest.mark.slow
def test_the_results_are_written_where_they_were(tmp_path: Path) -> None:
    """With other numbers before, all of them are put right."""
    for name in ("README.md", "docs/JUDGING.md", "docs/results/kill_matrix.json", TRIALS.as_posix()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        text = read(name)
        if name.endswith(".md"):
            text = text.replace("**0 of 15**", "**9 of 99**").replace("| f64 |", "| f99 |")
            assert text != read(name)
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = run([sys.executable, "-m", "conformance.selftest.tables"], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name in ("README.md", "docs/JUDGING.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == read(name)


def test_a_document_without_results_stays_as_it_is() -> None:
    text = read("docs/PROMPTS.md")
    assert with_results(text, read_scores(ROOT), read_trials(ROOT)) == text


def test_its_levels_are_those_of_the_suite() -> None:
    rows = re.findall(r"^\| (L\d) \| (.*) \|$", JUDGING, re.MULTILINE)
    assert dict(rows) == dict(LEVELS)
