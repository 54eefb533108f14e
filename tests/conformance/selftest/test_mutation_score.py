"""The suite's mutation score: what the docs say is what the last self-test said, and it still holds.

`gemma4-conformance self-test` judges every mutant on every case; here each is put again to the case that was noted as
its witness, so that a change that lets one escape is red at once.
"""

from __future__ import annotations

import functools
import json
import re

import pytest

from conformance.adapters.mutant import MutantAdapter
from conformance.judging.judge import Judge
from conformance.selftest import kill_matrix
from conformance.selftest.catalogue_pages import COMMAND, pages
from conformance.selftest.mutation_score import Score, as_table, scores_of
from conformance.selftest.tables import KILL_MATRIX, read_results
from gemma4_contract.judged import chained_digest
from reference.mutants import MUTANTS
from tests.support import ROOT
from tests.support.installed import FIXTURES

MATRIX = ROOT / KILL_MATRIX
RESULTS = read_results(ROOT, FIXTURES)
SCORES = scores_of(RESULTS, MUTANTS)
AGAIN = (
    f"run `gemma4-conformance self-test --save {KILL_MATRIX}` (of a new mutant with --only ID), "
    "and `python -m conformance.selftest.tables`"
)
WITNESSES = [
    pytest.param(
        result.profile, result.mutant, *result.witness, marks=() if result.profile == "f32" else pytest.mark.slow
    )
    for result in RESULTS
    if result.witness
]


@functools.cache
def judge_of(mutant_id: str, profile: str) -> Judge:
    return Judge(FIXTURES, MutantAdapter(MUTANTS[mutant_id], kill_matrix.ORDER), profile)


def kill_of(mutant_id: str, profile: str, case: str) -> kill_matrix.Kill | None:
    verdict = judge_of(mutant_id, profile).judge(case)
    return kill_matrix.kill(FIXTURES, MUTANTS[mutant_id], verdict) if verdict.failed else None


def test_the_self_test_was_of_these_fixtures_and_mutants() -> None:
    assert json.loads(MATRIX.read_bytes())["fixtures"] == chained_digest(FIXTURES), AGAIN
    assert [score.profile for score in SCORES] == FIXTURES.profiles
    for score in SCORES:
        assert set(score.mutants) == MUTANTS.keys(), AGAIN


def test_the_table_of_the_docs_is_the_self_test_s() -> None:
    judging = (ROOT / "docs" / "JUDGING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- mutation-score -->\n(.*?)\n<!-- /mutation-score -->", judging, re.DOTALL)
    assert block == as_table(SCORES), AGAIN


def test_the_catalogue_for_people_is_the_catalogue() -> None:
    committed = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "mistakes").iterdir()}
    assert committed == pages(FIXTURES), f"run `{COMMAND}`, and remove pages of areas that are gone"


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.profile)
def test_the_score_has_not_fallen(score: Score) -> None:
    assert score.untrue == ()
    assert score.share == 1.0 if score.profile in ("f64", "f32") else score.share >= 0.95
    if score.profile == "f32":
        assert len(score.located) >= 0.95 * len(score.caught)


@pytest.mark.parametrize(("profile", "mutant_id", "case", "tap"), WITNESSES)
def test_a_mutant_is_still_caught(profile: str, mutant_id: str, case: str, tap: str) -> None:
    kill = kill_of(mutant_id, profile, case)
    assert kill is not None
    assert kill.tap == tap


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant_id", "case"), [(mutant.id, case) for mutant in MUTANTS.values() for case in mutant.caught_by]
)
def test_a_case_catches_what_it_hunts(mutant_id: str, case: str) -> None:
    asked = FIXTURES.case(case).profiles or ["f32", "bf16", "f16"]
    profiles = [profile for profile in asked if profile not in MUTANTS[mutant_id].equivalent_in]
    assert any(kill_of(mutant_id, profile, case) for profile in profiles)


EQUIVALENT = [(profile, mutant.id) for mutant in MUTANTS.values() for profile in mutant.equivalent_in]


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "mutant_id"), EQUIVALENT)
def test_a_mistake_that_changes_nothing_fails_nothing(profile: str, mutant_id: str) -> None:
    quick = [case.id for case in FIXTURES.cases() if case.kind != "forward" or case.id.endswith("l19/no-cache")]
    assert kill_matrix.row(FIXTURES, MUTANTS[mutant_id], profile, quick).kills == ()
