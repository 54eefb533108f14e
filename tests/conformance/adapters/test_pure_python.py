"""The plain Python port: everything it offers conforms in f64, and it claims nothing else."""

from __future__ import annotations

import pytest

from conformance.adapters.pure_python import PurePythonAdapter
from conformance.judging.judge import Judge
from tests.support.installed import FIXTURES

ADAPTER = PurePythonAdapter()
OFFERED = [
    case.id
    for case in FIXTURES.cases()
    if case.kind in ADAPTER.hello().kinds and (not case.profiles or "f64" in case.profiles)
]


def test_it_offers_module_cases_in_f64_alone() -> None:
    assert ADAPTER.hello().profiles == ("f64",)
    assert len(OFFERED) == 31
    assert all(case_id.startswith("module/") for case_id in OFFERED)


@pytest.mark.parametrize("case_id", OFFERED)
def test_what_it_offers_conforms(case_id: str) -> None:
    assert Judge(FIXTURES, ADAPTER, "f64").judge(case_id).outcome == "pass"


def test_what_it_lacks_is_a_skip_with_a_reason() -> None:
    verdict = Judge(FIXTURES, ADAPTER, "f64").judge("module/router/top-8-of-16")
    assert (verdict.outcome, verdict.note) == ("skip", "no kind router")
