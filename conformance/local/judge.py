"""The local judgement of an answer: the verdict on every tap, given the port's own taps before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from conformance.judging.compare import TapVerdict, compare
from conformance.judging.question import Question
from conformance.judging.tolerance import CaseFloors, Tolerance, local_tolerance, tolerance, wider
from conformance.local.bridges import bridges
from conformance.local.choices import Slack
from conformance.local.predict import Asked, Prediction, Predictor
from gemma4_contract import Fixtures, TapSpec
from gemma4_contract.graph import text_graph
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array


class LocalJudge:
    """Judges answers locally in one profile, by the local floors of one set of fixtures."""

    def __init__(self, fixtures: Fixtures, profile: str) -> None:
        self.fixtures = fixtures
        self._profile = fixtures.profile(profile)
        self._floors = fixtures.local_floors(profile).floors
        self._predictor = Predictor()

    def judge(
        self, question: Question, answer: Mapping[str, Array], prediction: Prediction | None = None
    ) -> tuple[TapVerdict, ...]:
        """The verdict on every tap of an answer that can be judged so, in execution order.

        There is none for a case that cannot be predicted, nor for an answer with no tap but the last: without parents
        of its own there is nothing to judge it by. A tap that is no number, or has another shape, fails if what it is
        computed from is sound, and else has no verdict. `prediction` is that of `predict`, where it is at hand.
        """
        found = prediction or self.predict(question, answer)
        if found is None:
            return ()
        through, chained = bridges(question.taps, found.offered), self._chained(question)
        verdicts = []
        for spec in question.taps:
            bridged = len(through[spec.name])
            if spec.name not in answer or (bridged and spec.name not in found.offered):
                continue
            expected = found.taps[spec.name]
            valid = spread_mask(found.rows.get(spec.name), spec.axes, expected.shape)
            verdict = compare(
                spec,
                answer[spec.name],
                expected,
                profile=self._profile,
                valid=valid,
                allowed=self._allowed(spec, expected, valid, chained if bridged else None),
            )
            doubtful = verdict.status == "pass" and spec.name in found.doubtful
            verdicts.append(replace(verdict, through=bridged, status="undecidable" if doubtful else verdict.status))
        return tuple(verdicts)

    def predict(
        self, question: Question, answer: Mapping[str, Array], predictor: Predictor | None = None
    ) -> Prediction | None:
        """What every tap of an answer should be, given the others, by a predictor: the right oracle if none is named.

        None where it cannot be judged so.
        """
        asked = Asked.of(question)
        offered = {} if asked is None else asked.usable(answer)
        if asked is None or not offered.keys() - {question.taps[-1].name}:
            return None
        slack = Slack(
            profile=self._profile, policy=self.fixtures.policy, offered=offered, floors=self._chained(question)
        )
        return (predictor or self._predictor).predict(asked, offered, slack)

    def _chained(self, question: Question) -> Mapping[str, list[float]]:
        """The floors of the case, which say how far a tap may err from the inputs on."""
        return CaseFloors.of(self.fixtures, question.case, self._profile.id).measured

    def _allowed(
        self, spec: TapSpec, predicted: Array, valid: Array | None, chained: Mapping[str, list[float]] | None
    ) -> Tolerance | None:
        """A bridge rounds as well: a tap beyond one may err as far as it may from the inputs on, which is farther."""
        node = text_graph().node_of(spec.name)
        assert node is not None
        allowed = local_tolerance(self._floors[node.tap], self._profile, self.fixtures.policy)
        if chained is None:
            return allowed
        if spec.name not in chained:
            return None
        counted = predicted if valid is None else predicted[valid]
        return wider(allowed, tolerance(chained[spec.name], counted, self._profile, self.fixtures.policy))
