"""The one place where a tolerance is made: max(3 x floor, 2 ulp), both numbers from `floors/policy.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from conformance.adapters.base import Array
from gemma4_contract import Policy
from gemma4_contract.profiles import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest accepted relative RMS error and relative maximum error of a tap."""

    rms: float
    max: float


def ulp(profile: Profile, magnitude: float) -> float:
    """Spacing of the profile's storage dtype at `magnitude` >= 0: 2 u 2^floor(log2 magnitude), u its unit roundoff."""
    power = math.ldexp(1.0, math.frexp(magnitude)[1] - 1) if magnitude > 0 else 0.0
    return 2 * profile.unit_roundoff * max(power, profile.smallest_normal)


def tolerance(floor: list[float], golden: Array, profile: Profile, policy: Policy) -> Tolerance:
    """Tolerance of a tap with this [rms, max] floor; zero where the golden is zero throughout."""
    values = golden.astype(np.float64)
    peak = float(np.abs(values).max(initial=0.0))
    if peak == 0.0:
        return Tolerance(rms=0.0, max=0.0)
    smallest = policy.ulps * ulp(profile, peak)
    root_mean_square = peak * math.sqrt(float(np.mean((values / peak) ** 2)))  # no square underflows to 0
    return Tolerance(
        rms=max(policy.floor_factor * floor[0], smallest / root_mean_square),
        max=max(policy.floor_factor * floor[1], smallest / peak),
    )
