"""The causes of a run's failures, told apart: each known mistake is compared at the nodes that it changes alone.

A mistake is computed like the right value, in float64 from the port's own taps. Where this gives another value than the
right one, the mistake *claims* the tap; it is a cause if the port answers what it claims, in every case that is looked
at. So several mistakes in one port do not hide each other, unless they change the same node.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from conformance.diagnosis import nearest
from conformance.diagnosis.evidence import NOTHING, Evidence
from conformance.diagnosis.wrong_nodes import WrongNode
from conformance.judging.compare import TapVerdict, measure
from conformance.judging.examine import CaseVerdict
from conformance.judging.question import Question
from conformance.local.judge import LocalJudge
from conformance.local.predict import Predictor
from gemma4_contract import Fixtures
from gemma4_contract.graph import text_graph
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.loading import Loader, config_of
from reference.mutants.mutant import Mutant
from reference.oracle.arithmetic import F64, PROFILES, Arithmetic
from reference.oracle.decoder import Decoder
from reference.oracle.oracle import Oracle

_CASES_A_NODE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Wrong nodes with one explanation; `mutants` are several if nothing that was asked tells them apart, or none."""

    nodes: tuple[str, ...]
    """Templates of the graph."""
    mutants: tuple[Mutant, ...]


@dataclass(slots=True, kw_only=True)
class _Claim:
    """What a mistake claims of the cases looked at so far, and the part of the port's errors there that it leaves."""

    misfit: float = 0.0
    taps: set[tuple[str, str]] = field(default_factory=set)
    """The wrong ones among the taps that it claims: (case, tap)."""

    def of(self, nodes: Sequence[str]) -> int:
        """How many wrong taps of these nodes it explains."""
        return sum(_template(tap) in nodes for _, tap in self.taps)

    @property
    def nodes(self) -> set[str]:
        """The nodes of these taps."""
        return {_template(tap) for _, tap in self.taps}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One answer, judged locally."""

    question: Question
    verdict: CaseVerdict
    right: Mapping[str, Array]
    """What each tap should be, given the answer."""

    @property
    def wrong(self) -> set[str]:
        return {tap.name for tap in self.verdict.wrong_by_themselves}


def causes(
    fixtures: Fixtures,
    profile: str,
    verdicts: Sequence[CaseVerdict],
    nodes: Sequence[WrongNode],
    catalogue: Mapping[str, Mutant],
) -> list[Cause]:
    """The causes of the wrong nodes of a run, in execution order; none without a local judgement."""
    if not nodes:
        return []
    judge = LocalJudge(fixtures, profile)
    seen = [_seen(fixtures, judge, verdict) for verdict in _telling(verdicts, nodes)]
    claims = {mutant_id: _claim(judge, profile, mutant, seen) for mutant_id, mutant in catalogue.items()}
    little = fixtures.policy.diagnosis_misfit
    fitting = {mutant_id: claim for mutant_id, claim in claims.items() if claim.taps and claim.misfit < little}
    found = _shared_out([node.tap for node in nodes], fitting, catalogue)
    alone = [verdict for verdict in verdicts if verdict.case.model is None]
    return [_told_apart(fixtures, profile, alone, cause) for cause in found]


def _telling(verdicts: Sequence[CaseVerdict], nodes: Sequence[WrongNode]) -> list[CaseVerdict]:
    """For each node the quickest failing cases of different models, and one passing case of each model."""
    found: dict[str, CaseVerdict] = {}
    quickest = sorted(verdicts, key=_cost)
    for node in nodes:
        models: set[str | None] = set()
        for verdict in quickest:
            if verdict.case.id in node.cases and verdict.case.model not in models and len(models) < _CASES_A_NODE:
                models.add(verdict.case.model)
                found[verdict.case.id] = verdict
    passing = {
        verdict.case.model: verdict for verdict in reversed(quickest) if verdict.outcome == "pass" and verdict.answer
    }
    return [*found.values(), *(verdict for model, verdict in passing.items() if model is not None)]


def _cost(verdict: CaseVerdict) -> tuple[bool, int, str]:
    """Layers before whole passes, plain ones first, long ones before short ones, which show less."""
    plan = verdict.case.plan
    return verdict.case.kind == "forward", 0 if plan is None or plan.steps is None else len(plan.steps), verdict.case.id


def _seen(fixtures: Fixtures, judge: LocalJudge, verdict: CaseVerdict) -> _Seen:
    question = Question.of(fixtures, verdict.case.id)
    answer = verdict.answer or {}
    right = judge.predict(question, answer)
    local = judge.judge(question, answer, right)  # a verdict from a report has no errors, only their ratios
    return _Seen(question=question, verdict=replace(verdict, local=local), right=right.taps if right else {})


def _claim(judge: LocalJudge, profile: str, mutant: Mutant, seen: Sequence[_Seen]) -> _Claim:
    """What a mistake claims of all that was seen; it is given up at the first case that it does not explain."""
    claim = _Claim()
    if not any(_may_claim(mutant, one) for one in seen):
        return claim
    ar = PROFILES[profile] if "f64" in mutant.equivalent_in else F64
    predictor = Predictor(functools.partial(_load, mutant.oracle, ar))
    for one in seen:
        try:
            prediction = judge.predict(one.question, one.verdict.answer or {}, predictor)
        except Exception:  # some mistakes make a pass raise, each in its own way
            claim.misfit = math.inf
            return claim
        wrong = prediction.taps if prediction else {}
        claimed = [tap for tap in one.verdict.local if _differs(tap, wrong, one.right)]
        if claimed:
            evidence = Evidence(verdict=replace(one.verdict, outcome="pass", taps=tuple(claimed)), golden=one.right)
            claim.misfit = max(claim.misfit, evidence.misfit(wrong))
            claim.taps |= {(one.verdict.case.id, tap.name) for tap in claimed if tap.name in one.wrong}
        if claim.misfit >= NOTHING:
            break
    return claim


def _may_claim(mutant: Mutant, one: _Seen) -> bool:
    """Whether a mistake touches a wrong tap, or one that a wrong tap is computed from and that was not offered."""
    assert one.question.model_dir is not None
    offered, wrong = {tap.name for tap in one.verdict.local}, one.wrong
    unseen = {parent for tap in one.question.taps if tap.name in wrong for parent in tap.parents} - offered
    return not mutant.first_taps(_config(one.question.model_dir)).isdisjoint(wrong | unseen)


_config = functools.cache(config_of)


def _load(oracle: Oracle, ar: Arithmetic, directory: Path) -> Decoder:
    """A decoder with a mistake; what it does not load otherwise it shares with all others."""
    if oracle.loader is not Loader or oracle.config is not TextConfig:
        return oracle.load(directory, ar)
    config, weights = _weights(directory, ar)
    return oracle.decoder(config, weights, ar, oracle.ops)


@functools.lru_cache(maxsize=4)
def _weights(directory: Path, ar: Arithmetic) -> tuple[TextConfig, Mapping[str, Array]]:
    config, weights = Loader().load(directory)
    return config, {name: ar.cast(value) for name, value in weights.items()}


def _differs(tap: TapVerdict, wrong: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Whether a mistake gives another value at a tap than the right one, by more than the tolerance."""
    if tap.tolerance is None or tap.name not in wrong:
        return False
    if wrong[tap.name].shape != right[tap.name].shape:
        return True
    return not measure(wrong[tap.name], right[tap.name], tap.valid).within(tap.tolerance)


def _shared_out(
    nodes: Sequence[str], fitting: Mapping[str, _Claim], catalogue: Mapping[str, Mutant]
) -> Iterator[Cause]:
    """Give each node to the mistake that explains the most of what is left; equals are rivals."""
    left = list(nodes)
    while left:
        first = left[0]
        sizes = {mutant_id: claim.of(left) for mutant_id, claim in fitting.items() if first in claim.nodes}
        best = [mutant_id for mutant_id, size in sizes.items() if size == max(sizes.values())]
        taken = {first}.union(*(fitting[mutant_id].nodes for mutant_id in best))
        yield Cause(
            nodes=tuple(node for node in left if node in taken),
            mutants=tuple(catalogue[mutant_id] for mutant_id in best),
        )
        left = [node for node in left if node not in taken]


def _told_apart(fixtures: Fixtures, profile: str, verdicts: Sequence[CaseVerdict], cause: Cause) -> Cause:
    """The cause without the rivals that a case of a single module contradicts, where another explains it."""
    alive, predictor = {mutant.id: mutant for mutant in cause.mutants}, nearest.Predictor(fixtures, profile)
    for verdict in verdicts if len(alive) > 1 else ():
        if verdict.failed or verdict.outcome == "pass":
            evidence = Evidence.of(fixtures, verdict)
            misfits = {id: evidence.misfit(predictor.predict(mutant, verdict.case.id)) for id, mutant in alive.items()}
            explaining = {id for id, misfit in misfits.items() if misfit < fixtures.policy.diagnosis_misfit}
            alive = {id: mutant for id, mutant in alive.items() if not explaining or id in explaining}
    return replace(cause, mutants=tuple(alive.values()))


def _template(name: str) -> str:
    node = text_graph().node_of(name)
    assert node is not None
    return node.tap
