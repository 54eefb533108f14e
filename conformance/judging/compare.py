"""One tap against its golden: present, shape, dtype, finite, value, in this order."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from conformance.judging.tolerance import Tolerance
from gemma4_contract import TapSpec
from gemma4_contract.profiles import Profile
from gemma4_contract.tensors import DTYPES, Array

Status = Literal["pass", "fail", "absent", "undecidable", "advice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The error of an answer over the valid entries; `worst` is the index of the largest, () if there is none."""

    rms: float
    max: float
    worst: tuple[int, ...]

    def within(self, allowed: Tolerance) -> bool:
        """Whether both are at most what is allowed; NaN is not."""
        return self.rms <= allowed.rms and self.max <= allowed.max


@dataclass(frozen=True, slots=True, kw_only=True)
class TapVerdict:
    """The verdict on one tap; `fault` says in a few words what is wrong, got before expected.

    `valid` masks the entries that count, in the golden's shape; None for all.
    """

    name: str
    status: Status
    fault: str = ""
    error: Error | None = None
    tolerance: Tolerance | None = None
    valid: Array | None = field(default=None, compare=False)
    through: int = 0
    """Judged locally: how many taps that the port does not offer lie between this one and the parents it came from."""

    @property
    def ratio(self) -> float:
        """Error over tolerance, the larger of RMS and maximum; over 1 fails."""
        if self.error is None or self.tolerance is None:
            return math.nan
        return max(_over(self.error.rms, self.tolerance.rms), _over(self.error.max, self.tolerance.max))


def _over(error: float, allowed: float) -> float:
    if error == 0.0:
        return 0.0
    return error / allowed if allowed else math.inf


def measure(answer: Array, golden: Array, valid: Array | None = None) -> Error:
    """Relative RMS error sqrt(mean err^2 / mean ref^2) and maximum max|err| / max|ref|, accumulated in float64.

    `valid` is boolean in the golden's shape. If the golden is zero everywhere, any error counts as infinite.
    """
    reference = golden.astype(np.float64)
    error, reference = np.abs(_widened(answer) - reference), np.abs(reference)
    if valid is not None:
        error, reference = np.where(valid, error, 0.0), np.where(valid, reference, 0.0)
    # not (err <= tol) must hold for NaN: argmax finds NaN first, and the sums carry it.
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape)) if error.size else ()
    peak, scale = float(error.max(initial=0.0)), float(reference.max(initial=0.0))
    with np.errstate(over="ignore"):  # a float64 answer of 1e200 is infinitely wrong, without a warning
        square, scale_square = float(np.sum(error**2)), float(np.sum(reference**2))
    return Error(
        rms=math.sqrt(square / scale_square) if scale_square else (math.inf if square else 0.0),
        max=peak / scale if scale else (math.inf if peak else 0.0),
        worst=worst,
    )


def compare(
    spec: TapSpec,
    answer: Array | None,
    golden: Array,
    *,
    profile: Profile,
    valid: Array | None,
    allowed: Tolerance | None,
    rms: tuple[float, float] | None = None,
) -> TapVerdict:
    """The verdict on one tap; class exact ignores `allowed`, class advice only wants finite values.

    Without valid entries or a tolerance an answer is undecidable. `rms` are the root mean squares
    of the whole answer and the whole golden, for a tap of which only a part is stored:
    |rms(answer) - rms(golden)| <= rms(answer - golden), so no answer within the tolerance differs by more.
    """
    if allowed is None or (valid is not None and not valid.any()):
        return TapVerdict(name=spec.name, status="absent" if answer is None else "undecidable", valid=valid)
    if spec.cls == "exact":
        allowed = Tolerance(rms=0.0, max=0.0)

    def verdict(status: Status, fault: str = "", error: Error | None = None) -> TapVerdict:
        return TapVerdict(name=spec.name, status=status, fault=fault, error=error, tolerance=allowed, valid=valid)

    if answer is None:
        return verdict("absent")
    if answer.shape != golden.shape:
        expected = spec.whole_shape(golden.shape)
        return verdict("fail", f"shape {list(answer.shape)}, expected {expected} ({' '.join(spec.axes)})")
    if fault := _dtype_fault(spec, answer, profile):
        return verdict("fail", fault)
    strange = ~np.isfinite(_widened(answer))
    if valid is not None:
        strange = strange & valid
    if strange.any():
        where = spec.place(np.argwhere(strange)[0])
        fault = f"{int(strange.sum())} NaN or infinite values, the first at {where}, expected none"
        return verdict("advice" if spec.cls == "advice" else "fail", fault)
    if spec.cls == "advice":
        return verdict("pass")
    error = measure(answer, golden, valid)
    if not error.within(allowed):
        got, wanted = float(answer[error.worst]), float(golden[error.worst])  # not every ml_dtypes formats its numbers
        return verdict("fail", f"got {got:.9g}, expected {wanted:.9g} at {spec.place(error.worst)}", error)
    if rms is None or not rms[1] or abs(rms[0] - rms[1]) / rms[1] <= allowed.rms:
        return verdict("pass", error=error)
    apart = abs(rms[0] - rms[1]) / rms[1]
    fault = f"what is stored is right, but the root mean square of all rows is {rms[0]:.9g}, expected {rms[1]:.9g}"
    return verdict("fail", fault, Error(rms=apart, max=0.0, worst=()))


def _widened(answer: Array) -> Array:
    with np.errstate(invalid="ignore"):  # NumPy warns of signalling NaNs; they are counted here
        return answer.astype(np.float64)


def _dtype_fault(spec: TapSpec, answer: Array, profile: Profile) -> str:
    """What is wrong with the answer's dtype; a wider one than the profile's is right, a narrower one is wrong."""
    if spec.dtype in ("I32", "U8"):
        return "" if answer.dtype.kind in "iu" else f"dtype {answer.dtype}, expected an integer dtype"
    holding = _holding(profile.storage)
    return "" if answer.dtype.name in holding else f"dtype {answer.dtype}, expected {' or '.join(holding)}"


@functools.cache
def _holding(storage: str) -> tuple[str, ...]:
    """The names of the dtypes that hold every value of a profile's storage dtype, the narrowest first."""
    by_width = sorted(DTYPES.values(), key=lambda dtype: dtype.itemsize)
    return tuple(dtype.name for dtype in by_width if np.can_cast(DTYPES[storage], dtype, "safe"))
