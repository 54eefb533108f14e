"""The diagnosis of a run: first divergence, description of the error, nearest known mistake, smallest case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from conformance.adapters.base import Adapter
from conformance.adapters.mutant import MutantAdapter
from conformance.diagnosis import describe, nearest, shrink
from conformance.diagnosis.causes import Cause, causes
from conformance.diagnosis.evidence import Evidence
from conformance.diagnosis.wrong_nodes import WrongNode, wrong_nodes
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from gemma4_contract import Fixtures, GoldenPointer
from reference.loading import config_of
from reference.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The diagnosis of a run's failures; `shown_by` is the case that it describes.

    `naming` is None at full size, where known mistakes are not compared.
    """

    shown_by: CaseVerdict
    failing: int
    judged: int
    words: Sequence[str]
    wrong_nodes: Sequence[WrongNode]
    causes: Sequence[Cause]
    """The causes of the wrong nodes; none without a local judgement."""
    naming: nearest.Naming | None
    smallest: shrink.Smallest


def diagnose(
    fixtures: Fixtures,
    profile: str,
    verdicts: Sequence[CaseVerdict],
    catalogue: Mapping[str, Mutant],
    port: Adapter | None,
) -> Diagnosis | None:
    """Diagnose the verdicts of one run, those that pass included; None when nothing failed.

    `port` answers shortened questions; without it the recognised mistake does, and an unknown one is not shortened.
    At full size no question is asked again: an answer takes minutes.
    """
    failing = [verdict for verdict in verdicts if verdict.failed]
    if not failing:
        return None
    naming, again, full_size = None, None, fixtures.weights is not None
    if not full_size:
        naming = _name(fixtures, profile, verdicts, catalogue)
        again = port or (MutantAdapter(naming.mutant) if naming.mutant else None)
    nodes = wrong_nodes(failing)
    shown_by = min(failing, key=lambda verdict: _clearest(verdict, past_the_window=full_size))
    return Diagnosis(
        shown_by=shown_by,
        failing=len(failing),
        judged=len(verdicts),
        words=describe.in_words(
            Evidence.of(fixtures, shown_by),
            fixtures.taps(shown_by.case),
            config_of(fixtures.card_dir(shown_by.case.model)) if shown_by.case.model else None,
            profile,
        ),
        wrong_nodes=nodes,
        causes=[] if full_size else causes(fixtures, profile, verdicts, nodes, catalogue),
        naming=naming,
        smallest=shrink.smallest(fixtures, failing, _still_fails(fixtures, profile, again) if again else None),
    )


def _name(
    fixtures: Fixtures, profile: str, verdicts: Sequence[CaseVerdict], catalogue: Mapping[str, Mutant]
) -> nearest.Naming:
    worst = nearest.misfits(nearest.Predictor(fixtures, profile), _evidence(fixtures, verdicts), catalogue)
    stops = all(verdict.outcome == "error" for verdict in verdicts if verdict.failed)
    return nearest.name(worst, catalogue, fixtures.policy, stops=stops)


def _evidence(fixtures: Fixtures, verdicts: Sequence[CaseVerdict]) -> Iterator[Evidence]:
    """Failing cases first, and the quickest to predict first: each one leaves fewer mistakes to compare."""
    speaking = [verdict for verdict in verdicts if verdict.failed or verdict.outcome == "pass"]
    for verdict in sorted(speaking, key=lambda verdict: (verdict.outcome == "pass", _cost(verdict))):
        yield Evidence.of(fixtures, verdict)


def _cost(verdict: CaseVerdict) -> tuple[int, int]:
    case = verdict.case
    return shrink.size_of_kind(case.kind), len(case.plan.steps or []) if case.plan else 0


def _clearest(verdict: CaseVerdict, *, past_the_window: bool) -> tuple[bool, int, bool, str]:
    """Sort key: a whole forward pass shows where in a model the error begins, best in one call without a cache.

    At full size only the whole text is longer than the window.
    """
    plain = verdict.case.plan is not None and verdict.case.plan.steps is None
    cut = past_the_window and isinstance(verdict.case.golden, GoldenPointer)
    return verdict.outcome == "error", -_cost(verdict)[0] - plain, cut, verdict.case.id


def _still_fails(fixtures: Fixtures, profile: str, port: Adapter) -> shrink.StillFails:
    judge = Judge(fixtures, port, profile)
    return lambda case_id, tokens: judge.judge(case_id, tokens).failed
