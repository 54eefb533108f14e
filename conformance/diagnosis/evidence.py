"""A port's answer to one case, and how well a prediction explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.judging.compare import TapVerdict
from conformance.judging.examine import CaseVerdict
from conformance.judging.question import Question
from conformance.judging.tolerance import Tolerance
from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array

NOTHING = 0.9
"""From this misfit on a prediction explains nothing: the golden's own, for an error of ten times the tolerance."""

Prediction = Mapping[str, Array] | None
"""The taps that an implementation with a known mistake answers; None if it raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The answer at one tap, measured once for all predictions.

    `answer` holds the valid entries, float64 [n]; `finite` masks those that are finite, None for all. Errors are
    root mean square and maximum, over these.
    """

    dtype: np.dtype[Any]
    wrong_in_value: bool
    """Whether the values are wrong: the tap was compared, and more than its dtype is wrong."""
    answer: Array
    finite: Array | None
    error: tuple[float, float]
    allowed: tuple[float, float]

    @classmethod
    def of(cls, tap: TapVerdict, allowed: Tolerance, answer: Array, golden: Array) -> _Seen:
        a, g = _entries(answer, tap.valid), _entries(golden, tap.valid)
        finite = np.isfinite(a)
        every = bool(finite.all())
        if not every:
            a, g = a[finite], g[finite]
        return cls(
            dtype=answer.dtype,
            wrong_in_value=tap.error is not None or not every,
            answer=a,
            finite=None if every else finite,
            error=_size(a - g),
            allowed=(allowed.rms * rms(g), allowed.max * _peak(g)),
        )

    def misfit(self, prediction: Array, valid: Array | None) -> float:
        """The part of the error that a prediction of the same shape leaves."""
        p = _entries(prediction, valid)
        if self.finite is not None:
            if not np.array_equal(self.finite, np.isfinite(p)):
                return math.inf
            p = p[self.finite]
        left = _size(self.answer - p)
        if not math.isfinite(left[0]) and not np.isfinite(p).all():
            return math.inf
        if not self.wrong_in_value:
            return 0.0 if self.dtype == prediction.dtype else math.inf
        return max(map(_part, left, self.error, self.allowed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A verdict with the goldens that it was made on.

    A case that passes is evidence too: a mistake that it would have caught is not the port's.
    """

    verdict: CaseVerdict
    golden: Mapping[str, Array]
    inputs: Mapping[str, Array] = field(default_factory=dict)
    """The inputs of the case."""
    _seen: dict[str, _Seen] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, fixtures: Fixtures, verdict: CaseVerdict) -> Evidence:
        """A verdict with the goldens and inputs of its case."""
        question = Question.of(fixtures, verdict.case.id)
        return cls(verdict=verdict, golden=question.golden, inputs=question.inputs)

    def misfit(self, prediction: Prediction) -> float:
        """How much of the port's error a prediction leaves unexplained, at the tap where this is largest.

        max over taps of (|answer - prediction| - tolerance) / max(|answer - golden|, tolerance), in root mean square
        and in maximum: 0 explains all, 1 nothing, more contradicts. Taps that one of the two lacks are ignored. A port
        that raises is explained by a mutant that raises; nothing explains a required tap that is missing.
        """
        raises = self.verdict.outcome == "error"
        if raises or prediction is None:
            return 0.0 if raises and prediction is None else math.inf
        if self.verdict.outcome == "fail" and self.verdict.first_divergence is None:
            return math.inf
        worst = math.nan
        for tap in self.verdict.taps:
            if tap.name in prediction:
                misfit = self._misfit(tap, prediction[tap.name])
                worst = misfit if math.isnan(worst) else max(worst, misfit)
            if worst >= NOTHING:  # whatever the other taps show
                break
        return math.inf if math.isnan(worst) else worst

    def _misfit(self, tap: TapVerdict, prediction: Array) -> float:
        answer, golden, allowed = (self.verdict.answer or {}).get(tap.name), self.golden[tap.name], tap.tolerance
        if answer is None or allowed is None or (tap.status == "pass" and tap.error is None):
            return 0.0  # nothing was compared
        if answer.shape != golden.shape or prediction.shape != golden.shape:
            return 0.0 if answer.shape == prediction.shape else math.inf
        if tap.name not in self._seen:
            self._seen[tap.name] = _Seen.of(tap, allowed, answer, golden)
        return self._seen[tap.name].misfit(prediction, tap.valid)


def _entries(x: Array, valid: Array | None) -> Array:
    """The entries that count, float64 [n]."""
    counted: Array = (x.reshape(-1) if valid is None else x[valid]).astype(np.float64, copy=False)
    return counted


def _part(unexplained: float, error: float, allowed: float) -> float:
    """The part of an error that remains above the tolerance."""
    left = max(unexplained - allowed, 0.0)
    return left / max(error, allowed) if left and max(error, allowed) else (math.inf if left else 0.0)


def _size(x: Array) -> tuple[float, float]:
    """Root mean square and maximum."""
    return rms(x), _peak(x)


def rms(x: Array) -> float:
    return math.sqrt(float(np.vdot(x, x)) / x.size) if x.size else 0.0


def _peak(x: Array) -> float:
    return float(np.abs(x).max()) if x.size else 0.0
