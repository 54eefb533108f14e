"""The tolerance of a tap: max(3 x floor, 2 ulp), both numbers from `floors/policy.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemma4_contract import Case, FixtureError, Fixtures, Policy, TapSpec
from gemma4_contract.profiles import Profile
from gemma4_contract.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest accepted relative RMS error and relative maximum error of a tap."""

    rms: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFloors:
    """The errors of honest implementations in a case: `floors[tap]` is [rms, max]; FixtureError if there is none."""

    measured: Mapping[str, list[float]]
    owner: str
    """The case that stores the golden."""
    may_lack: bool
    """Whether a tap may lack a floor, as stored rows do after experts that no honest pass chose."""
    path: Path
    """The file of the profile."""

    @classmethod
    def of(cls, fixtures: Fixtures, case: Case, profile: str) -> CaseFloors:
        """The floors of a case in a profile."""
        owner = fixtures.owner(case)
        return cls(
            measured=fixtures.floors(profile).floors.get(owner.id, {}),
            owner=owner.id,
            may_lack=owner.choices is not None,
            path=fixtures.floors_path(profile),
        )

    def __getitem__(self, tap: str) -> list[float]:
        if tap not in self.measured:
            raise FixtureError(
                self.path,
                got=f"no floor of {tap} in {self.owner}",
                expected="one for every tap that is judged by floor",
                cure=f"measure it with `gemma4-conformance floors --profile {self.path.stem}`",
            )
        return self.measured[tap]


def ulp(profile: Profile, magnitude: float) -> float:
    """Spacing of the profile's storage dtype at `magnitude` >= 0: 2 u 2^floor(log2 magnitude), u its unit roundoff."""
    power = math.ldexp(1.0, math.frexp(magnitude)[1] - 1) if magnitude > 0 else 0.0
    return 2 * profile.unit_roundoff * max(power, profile.smallest_normal)


def tolerance_of(
    spec: TapSpec, golden: Array, valid: Array | None, floors: CaseFloors, profile: Profile, policy: Policy
) -> Tolerance | None:
    """Tolerance of a tap over its valid entries; zero if it must be equal, None if it lacks a floor and may."""
    counted = golden if valid is None else golden[valid]
    if spec.cls not in ("floor", "routing") or not counted.size:
        return Tolerance(rms=0.0, max=0.0)
    if floors.may_lack and spec.name not in floors.measured:
        return None
    return tolerance(floors[spec.name], counted, profile, policy)


def tolerance(floor: list[float], golden: Array, profile: Profile, policy: Policy) -> Tolerance:
    """Tolerance of a tap with this [rms, max] floor; zero if the golden is zero everywhere."""
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


def local_tolerance(floor: list[float], profile: Profile, policy: Policy) -> Tolerance:
    """Tolerance of a tap whose parents are the port's own: its floor times the factor, at least the ulps of policy.

    The ulps are relative to the values, 2 u each: a peak does not widen what is judged beside it.
    """
    smallest = policy.ulps * 2 * profile.unit_roundoff
    return Tolerance(
        rms=max(policy.floor_factor * floor[0], smallest), max=max(policy.floor_factor * floor[1], smallest)
    )


def wider(one: Tolerance, other: Tolerance) -> Tolerance:
    """The larger of two tolerances, RMS and maximum each."""
    return Tolerance(rms=max(one.rms, other.rms), max=max(one.max, other.max))
