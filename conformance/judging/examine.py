"""One answer against its goldens: the verdict on every tap, and on the case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from conformance.adapters.base import Array
from conformance.judging.compare import TapVerdict, compare, compare_whole
from conformance.judging.logits_metrics import KL, NLL, judge_figures, whole_model
from conformance.judging.lookalike import advice
from conformance.judging.question import Question
from conformance.judging.routing import Comparable, comparable_rows
from conformance.judging.tolerance import Tolerance, tolerance
from gemma4_contract import Case, FixtureError, Fixtures, TapSpec
from gemma4_contract.layout import spread_mask

Outcome = Literal["pass", "fail", "skip", "error", "undecidable", "advice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseVerdict:
    """What became of one case: the taps in execution order, the answer, a note where there is none to judge."""

    case: Case
    outcome: Outcome
    taps: tuple[TapVerdict, ...] = ()
    note: str = ""
    answer: Mapping[str, Array] | None = None

    @property
    def failed(self) -> bool:
        """Whether the case turns a run red: a wrong answer, or none."""
        return self.outcome in ("fail", "error")

    @property
    def first_divergence(self) -> TapVerdict | None:
        """The first failing tap in execution order: everything that it is computed from passes or was not offered."""
        return next((tap for tap in self.taps if tap.status == "fail"), None)


class Examiner:
    """Examines answers in one profile against one set of fixtures."""

    def __init__(self, fixtures: Fixtures, profile: str) -> None:
        self.fixtures = fixtures
        self.profile = profile
        self._arithmetic = fixtures.profile(profile)

    def examine(self, question: Question, answer: Mapping[str, Array]) -> CaseVerdict:
        """The verdict on an answer, wherever it came from; FixtureError when a floor is missing."""
        case, golden, specs = question.case, question.golden, question.taps
        comparable = comparable_rows(
            specs,
            question.shapes,
            question.choices(answer),
            lambda logits, margins: self._narrow_rows(case, logits, golden[logits], margins),
        )
        of_all = {  # no golden's where rows of the answer chose other experts
            name: rms for name, rms in question.whole_rms(answer).items() if comparable.rows[name].all()
        }
        rows, answer = question.stored_rows(comparable.rows), question.stored_part(answer)
        pads = question.inputs[case.mask].astype(bool) if case.mask else True
        taps = tuple(
            self._tap(case, spec, answer.get(spec.name), golden[spec.name], rows.get(spec.name), pads)
            if not question.chosen or spec.name in self._floors(case)
            else TapVerdict(name=spec.name, status="undecidable" if spec.name in answer else "absent")
            for spec in specs
        )
        taps = tuple(
            compare_whole(tap, spec, of_all[spec.name]) if spec.name in of_all else tap
            for tap, spec in zip(taps, specs, strict=True)
        )

        def verdict(outcome: Outcome, note: str = "") -> CaseVerdict:
            return CaseVerdict(case=case, outcome=outcome, taps=taps, note=note, answer=answer)

        if taps[-1].status == "absent":
            return verdict("fail", f"{taps[-1].name} is required and absent")
        # The floors of these figures are of whole texts, and the figures of all logits.
        if case.kind == "forward" and question.whole and not question.is_sampled:
            taps += self._whole_model(case, question.inputs["ids"], golden, answer, rows["logits"] & pads)
        failing = next((tap.name for tap in taps if tap.status == "fail"), None)
        if failing is not None:
            return verdict("fail", advice(self.fixtures, case, failing, answer))
        if any(tap.status == "advice" for tap in taps):
            return verdict("advice", f"advice: {case.advice}")
        if comparable.first_undecidable is not None:
            return verdict("undecidable", _undecidable(comparable))
        unmeasured = next((tap.name for tap in taps if tap.status == "undecidable"), None)
        if unmeasured is not None:
            return verdict(
                "undecidable", f"undecidable from {unmeasured} on: no honest pass chose these experts so far"
            )
        return verdict("pass")

    def _tap(
        self, case: Case, spec: TapSpec, answer: Array | None, golden: Array, rows: Array | None, pads: Array | bool
    ) -> TapVerdict:
        """Compare the rows [B, L] of a tap that are neither pads nor behind an undecidable choice of experts."""
        valid = None if rows is None else spread_mask(rows & pads, spec.axes, golden.shape)
        if valid is not None and not valid.any():
            return TapVerdict(name=spec.name, status="absent" if answer is None else "undecidable", valid=valid)
        allowed = Tolerance(rms=0.0, max=0.0)
        if spec.cls in ("floor", "routing"):
            counted = golden if valid is None else golden[valid]
            allowed = tolerance(self._floor(case, spec.name), counted, self._arithmetic, self.fixtures.policy)
        return compare(spec, answer, golden, profile=self._arithmetic, valid=valid, allowed=allowed)

    def _whole_model(
        self, case: Case, ids: Array, golden: Mapping[str, Array], answer: Mapping[str, Array], rows: Array
    ) -> tuple[TapVerdict, ...]:
        """The figures of whole_model over the rows that can be compared, as verdicts behind the taps."""
        logits = golden["logits"]
        got = answer["logits"]
        if got.shape != logits.shape or not rows.any() or not np.isfinite(got[rows].astype(np.float64)).all():
            return ()
        movable = tolerance(self._floor(case, "logits"), logits[rows], self._arithmetic, self.fixtures.policy).max
        figures = whole_model(logits, got, ids, rows, movable * float(np.abs(logits[rows]).max()))
        return judge_figures(figures, self._floor(case, KL), self._floor(case, NLL), self.fixtures.policy)

    def _narrow_rows(self, case: Case, logits: str, golden: Array, margins: Array) -> Array | None:
        """Where the margin [B, L] of the router's logits is within what rounding moves them by.

        None where no honest variant was ever left to measure that with.
        """
        floor = self._floors(case).get(logits)
        if floor is None:
            return None
        narrow: Array = margins <= self.fixtures.policy.routing_margin * floor[1] * np.abs(golden).max()
        return narrow

    def _floors(self, case: Case) -> Mapping[str, list[float]]:
        return self.fixtures.floors(self.profile).floors.get(self.fixtures.owner(case).id, {})

    def _floor(self, case: Case, tap: str) -> list[float]:
        floor = self._floors(case).get(tap)
        if floor is None:
            raise FixtureError(
                self.fixtures.floors_path(self.profile),
                got=f"no floor of {tap} in {self.fixtures.owner(case).id}",
                expected="one for every tap that is judged by floor",
                cure=f"measure it with `gemma4-conformance floors --profile {self._arithmetic.floors}`",
            )
        return floor


def _undecidable(comparable: Comparable) -> str:
    assert comparable.first_undecidable is not None
    tap, row = comparable.first_undecidable
    return f"undecidable from {tap}, row {row} on: rounding may choose other experts there; nothing before it fails"
