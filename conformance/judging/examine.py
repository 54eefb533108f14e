"""Compares one answer with its goldens: the verdict on every tap, and on the case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from conformance.judging.compare import TapVerdict, compare
from conformance.judging.logits_metrics import judge_logits
from conformance.judging.question import Question
from conformance.judging.routing import choices_of, comparable_rows
from conformance.judging.tolerance import CaseFloors, tolerance_of
from gemma4_contract import Case, Fixtures
from gemma4_contract.tensors import Array

Outcome = Literal["pass", "fail", "skip", "error", "undecidable", "advice"]
OneJudgement = Literal["chained", "local"]
Judgement = Literal["chained", "local", "both"]
"""Chained: against goldens, which are computed from the case's inputs. Local: from the port's own taps before."""
_ROUNDING = "rounding may choose other experts there; nothing before it fails"
_OWN_CHOICE = "judged by its own taps alone: it chose other experts there, as rounding may"
_LOCAL_ALONE = "no golden is missed, but what comes after the port's own taps is not what they give"
_UNMEASURED = "no honest pass chose these experts so far"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseVerdict:
    """The verdict on one case: the taps in execution order, the answer, and a note if there is no answer."""

    case: Case
    outcome: Outcome
    taps: tuple[TapVerdict, ...] = ()
    note: str = ""
    answer: Mapping[str, Array] | None = None
    local: tuple[TapVerdict, ...] = ()
    """The local verdicts on the taps that the port offers; none if they were not judged so."""
    own_choice: bool = False
    """Whether the port chose other experts than the golden somewhere, as rounding may: from there on only the local
    judgement decides."""

    @property
    def failed(self) -> bool:
        """Whether the case fails the run: the answer is wrong or missing."""
        return self.outcome in ("fail", "error")

    @property
    def first_divergence(self) -> TapVerdict | None:
        """The first tap in execution order that fails in either judgement; the chained verdict on it if that fails.

        All of its inputs pass or were not offered.
        """
        local = {tap.name: tap for tap in self.wrong_by_themselves}
        failing = (tap if tap.status == "fail" else local.get(tap.name) for tap in self.taps)
        return next((tap for tap in failing if tap is not None), None)

    @property
    def wrong_by_themselves(self) -> tuple[TapVerdict, ...]:
        """The taps that are wrong given the port's own taps before them: the causes of whatever else fails."""
        return tuple(tap for tap in self.local if tap.status == "fail")

    @property
    def judgement(self) -> Judgement:
        """Which judgement gave the outcome: of a failure those that fail, else those that decided."""
        if not self.local:
            return "chained"
        if self.outcome == "fail":
            chained = any(tap.status == "fail" for tap in self.taps)
            return "both" if chained and self.wrong_by_themselves else "chained" if chained else "local"
        return "local" if self.own_choice and self.outcome == "pass" else "both"


class Local(Protocol):
    """The local judgement, which needs the reference: `conformance.local.judge.LocalJudge`."""

    def judge(self, question: Question, answer: Mapping[str, Array]) -> tuple[TapVerdict, ...]:
        """The verdict on every tap that an answer offers, in execution order; none if it cannot be judged so."""
        ...


class Examiner:
    """Examines answers in one profile against one set of fixtures, by goldens and, with `local`, by themselves."""

    def __init__(self, fixtures: Fixtures, profile: str, local: Local | None = None) -> None:
        self.fixtures = fixtures
        self.profile = profile
        self._local = local
        self._arithmetic = fixtures.profile(profile)

    def examine(self, question: Question, answer: Mapping[str, Array]) -> CaseVerdict:
        """The verdict on an answer from any source; FixtureError if a floor is missing."""
        case, golden, stored = question.case, question.golden, question.stored
        floors, policy = CaseFloors.of(self.fixtures, case, self.profile), self.fixtures.policy

        def narrow_rows(logits: str, margins: Array) -> Array | None:
            """Where a margin is so narrow that rounding may decide; None if no honest variant was measured."""
            if logits not in floors.measured:
                return None
            narrow: Array = margins <= policy.routing_margin * floors[logits][1] * np.abs(golden[logits]).max()
            return narrow

        choices = choices_of(stored.experts, answer)
        comparable = comparable_rows(question.taps, stored.shapes, choices, narrow_rows)
        part, whole = stored.stored_part(answer), comparable.whole  # the rest concerns only the stored part
        counted = stored.valid_entries(golden, comparable.rows, question.inputs.get(case.mask or ""))
        taps = tuple(
            compare(
                spec,
                part.taps.get(spec.name),
                golden[spec.name],
                profile=self._arithmetic,
                valid=counted[spec.name],
                allowed=tolerance_of(spec, golden[spec.name], counted[spec.name], floors, self._arithmetic, policy),
                rms=part.rms.get(spec.name) if spec.name in whole else None,
            )
            for spec in question.taps
        )

        local = self._local.judge(question, answer) if self._local else ()

        def verdict(outcome: Outcome, note: str = "") -> CaseVerdict:
            return CaseVerdict(
                case=case,
                outcome=outcome,
                taps=taps,
                note=note,
                answer=part.taps,
                local=local,
                own_choice=comparable.first_undecidable is not None,
            )

        last = taps[-1]
        any_will_do = case.kind == "subgraph" and any(tap.status != "absent" for tap in taps)
        if last.status == "absent" and not any_will_do:
            return verdict("fail", f"{last.name} is required and absent")
        if question.has_metrics and last.valid is not None and last.tolerance is not None:
            logits, rows = part.taps[last.name], last.valid[..., 0]
            ids = question.inputs["ids"]
            taps += judge_logits(
                golden[last.name], logits, ids, rows, allowed=last.tolerance, floors=floors, policy=policy
            )
        failing = next((tap.name for tap in taps if tap.status == "fail"), None)
        if failing is not None:
            return verdict("fail", question.advice(failing, part.taps))
        if any(tap.status == "fail" for tap in local):
            return verdict("fail", _LOCAL_ALONE)
        if any(tap.status == "advice" for tap in taps):
            return verdict("advice", f"advice: {case.advice}")
        if comparable.first_undecidable is not None:
            tap, row = comparable.first_undecidable
            if local and local[-1].name == last.name and all(one.status == "pass" for one in local):
                return verdict("pass", f"from {tap}, row {row} on {_OWN_CHOICE}")
            return verdict("undecidable", f"undecidable from {tap}, row {row} on: {_ROUNDING}")
        unmeasured = next((tap.name for tap in taps if tap.status == "undecidable"), None)
        if unmeasured is not None:
            return verdict("undecidable", f"undecidable from {unmeasured} on: {_UNMEASURED}")
        return verdict("pass")
