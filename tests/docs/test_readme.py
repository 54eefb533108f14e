"""What the README says of the suite is what the last run of the self-test said, and that run was of these fixtures."""

from __future__ import annotations

import json
import re

from conformance.reporting.jsonl import digest
from conformance.selftest.specificity import Trial, as_table
from gemma4_contract import Fixtures
from tests.support import ROOT

RESULT = json.loads((ROOT / "docs" / "results" / "self_test.json").read_text(encoding="utf-8"))
AGAIN = "run `gemma4-conformance self-test --honest --save docs/results/self_test.json` and paste its table"


def test_the_self_test_was_of_these_fixtures() -> None:
    assert RESULT["fixtures"] == digest(Fixtures()), AGAIN


def test_nobody_honest_was_accused() -> None:
    assert RESULT["accused"] == 0
    assert [trial for trial in RESULT["variants"] if trial["accused"]] == []


def test_the_table_of_the_readme_is_the_self_test_s() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- self-test -->\n(.*?)\n<!-- /self-test -->", readme, re.DOTALL)
    assert block == as_table([Trial(**trial) for trial in RESULT["variants"]]), AGAIN
