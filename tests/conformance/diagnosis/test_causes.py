"""Several mistakes in one port: each is named at the nodes that it makes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

from conformance.adapters.oracle import OracleAdapter
from conformance.diagnosis.causes import Cause, causes
from conformance.diagnosis.wrong_nodes import wrong_nodes
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from conformance.local.judge import LocalJudge
from reference.mutants import MUTANTS
from reference.oracle.oracle import Oracle
from tests.support.installed import FIXTURES

MODELS = ("12b-mini", "26b-a4b-mini", "e2b-mini")
CASES = [
    case.id
    for case in FIXTURES.cases()
    if case.model is None
    or (case.model in MODELS and (case.kind in ("layer", "attention") or "l9/no-cache" in case.id))
]


def with_mistakes(mutant_ids: Sequence[str]) -> Oracle:
    """The oracle with several mistakes, each in a class of its own or in another function."""
    parts: dict[str, list[type]] = {}
    for mutant_id in mutant_ids:
        oracle, right = MUTANTS[mutant_id].oracle, Oracle()
        for part in ("ops", "decoder", "config", "loader"):
            if getattr(oracle, part) is not getattr(right, part):
                parts.setdefault(part, []).append(getattr(oracle, part))
    return Oracle(**{part: type("Several", tuple(wrong), {}) for part, wrong in parts.items()})


@cache
def local_judge(profile: str) -> LocalJudge:
    return LocalJudge(FIXTURES, profile)


def found(mutant_ids: Sequence[str], profile: str = "f32", cases: Sequence[str] = CASES) -> list[Cause]:
    port = OracleAdapter("split", oracle=with_mistakes(mutant_ids))
    judge = Judge(FIXTURES, port, profile, local_judge(profile))
    verdicts: list[CaseVerdict] = [judge.judge(case) for case in cases]
    return causes(FIXTURES, profile, verdicts, wrong_nodes(verdicts), MUTANTS)


def names(of: Sequence[Cause]) -> list[list[str]]:
    return [[mutant.id for mutant in cause.mutants] for cause in of]


@pytest.mark.parametrize(
    "planted",
    [
        ("prop-rope-denominator", "gelu-erf", "softcap-missing"),
        ("ple-combine-scale-missing", "router-double-norm"),
        *(
            pytest.param(planted, marks=pytest.mark.slow)
            for planted in (
                ("sliding-window-one-more", "layer-scalar-dropped"),
                ("attn-scale-not-one", "post-feedforward-norm-missing"),
                ("v-norm-missing", "embed-scale-missing", "ple-gate-not-activated"),
            )
        ),
    ],
    ids="+".join,
)
def test_every_cause_of_a_report_is_named(planted: tuple[str, ...]) -> None:
    assert sorted(names(found(planted))) == sorted([mutant_id] for mutant_id in planted)


def test_a_mistake_that_nobody_knows_has_no_name_and_hides_none() -> None:
    known = {mutant_id: mutant for mutant_id, mutant in MUTANTS.items() if mutant_id != "gelu-erf"}
    port = OracleAdapter("split", oracle=with_mistakes(("prop-rope-denominator", "gelu-erf")))
    judge = Judge(FIXTURES, port, "f32", local_judge("f32"))
    verdicts = [judge.judge(case) for case in CASES]
    of = causes(FIXTURES, "f32", verdicts, wrong_nodes(verdicts), known)
    assert ["prop-rope-denominator"] in names(of)
    assert next(cause for cause in of if "model.layers.{i}.mlp.act" in cause.nodes).mutants == ()


def test_without_a_local_judgement_there_are_none() -> None:
    assert causes(FIXTURES, "f32", [], [], MUTANTS) == []
