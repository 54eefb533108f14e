"""What a port answered to one case, and how well a prediction explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from conformance.adapters.base import Array
from conformance.judging.compare import TapVerdict
from conformance.judging.examine import CaseVerdict

NOTHING = 0.9
"""Misfit from which a prediction explains nothing: that of the golden itself, for an error ten times the tolerance."""

Prediction = Mapping[str, Array] | None
"""What an implementation with a known mistake answers; None when it raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A verdict with the goldens that it was made on.

    A case that passes speaks as well: a mistake that it would have caught is not the port's.
    """

    verdict: CaseVerdict
    golden: Mapping[str, Array]

    def misfit(self, prediction: Prediction) -> float:
        """How much of the port's error a prediction leaves unexplained, at the tap where that is most.

        max over taps of (|answer - prediction| - tolerance) / max(|answer - golden|, tolerance), in root mean square
        and in maximum: 0 explains all, 1 nothing, more contradicts. Taps that one of the two lacks say nothing; a port
        that raises is explained by one that does, a lack of what is required by nothing.
        """
        raises = self.verdict.outcome == "error"
        if raises or prediction is None:
            return 0.0 if raises and prediction is None else math.inf
        if self.verdict.outcome == "fail" and self.verdict.first_divergence is None:
            return math.inf
        worst = math.nan
        for tap in self.verdict.taps:
            if tap.name in prediction:
                worst = np.fmax(worst, self._misfit(tap, prediction[tap.name]))
            if worst >= NOTHING:  # whatever the others say
                break
        return math.inf if math.isnan(worst) else float(worst)

    def _misfit(self, tap: TapVerdict, prediction: Array) -> float:
        answer, golden, allowed = (self.verdict.answer or {}).get(tap.name), self.golden[tap.name], tap.tolerance
        if answer is None or allowed is None or (tap.status == "pass" and tap.error is None):
            return 0.0  # nothing was compared
        if answer.shape != golden.shape or prediction.shape != golden.shape:
            return 0.0 if answer.shape == prediction.shape else math.inf
        seen = np.ones(golden.shape, bool) if tap.valid is None else tap.valid
        a, g, p = (x[seen].astype(np.float64) for x in (answer, golden, prediction))
        strange = ~np.isfinite(a)
        if not np.array_equal(strange, ~np.isfinite(p)):
            return math.inf
        if tap.error is None and not strange.any():  # nothing is wrong with it but its dtype
            return 0.0 if answer.dtype == prediction.dtype else math.inf
        a, g, p = a[~strange], g[~strange], p[~strange]
        return max(
            _part(rms(a - p), rms(a - g), allowed.rms * rms(g)),
            _part(_peak(a - p), _peak(a - g), allowed.max * _peak(g)),
        )


def _part(unexplained: float, error: float, allowed: float) -> float:
    """The part of an error that is left, as far as it exceeds what rounding may do."""
    left = max(unexplained - allowed, 0.0)
    return left / max(error, allowed) if left and max(error, allowed) else (math.inf if left else 0.0)


def rms(x: Array) -> float:
    return math.sqrt(float(np.mean(x**2))) if x.size else 0.0


def _peak(x: Array) -> float:
    return float(np.abs(x).max(initial=0.0))
