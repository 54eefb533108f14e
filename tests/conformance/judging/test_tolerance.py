"""Tolerances: max(3 x floor, 2 ulp), and ulps that are those of the dtypes."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.judging.tolerance import Tolerance, tolerance, ulp
from gemma4_contract import Policy
from gemma4_contract.tensors import Array
from tests.support.installed import FIXTURES

DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
POLICY = FIXTURES.policy
F32 = FIXTURES.profile("f32")


def finfo(profile: str) -> Any:
    of: Any = ml_dtypes.finfo  # untyped
    return of(DTYPES[profile])


def spacing(profile: str, magnitude: float) -> float:
    """NumPy's and ml_dtypes' own word on the distance to the next larger number."""
    return float(np.spacing(np.array(magnitude, DTYPES[profile])))


def magnitudes(profile: str) -> list[float]:
    info = finfo(profile)
    smallest, normal = float(info.smallest_subnormal), float(info.smallest_normal)
    turning = [2.0**e * f for e in (-10, -1, 0, 1, 5, 14) for f in (1.0, 1.5, 2 - float(info.eps))]
    return [smallest, 3 * smallest, normal - smallest, normal, normal + smallest, *turning]


@pytest.mark.parametrize("profile", DTYPES)
def test_ulp_is_the_spacing_of_the_dtype(profile: str) -> None:
    for magnitude in magnitudes(profile):
        assert ulp(FIXTURES.profile(profile), magnitude) == spacing(profile, magnitude), magnitude


@pytest.mark.parametrize("profile", DTYPES)
def test_ulp_at_zero_and_at_the_largest_number(profile: str) -> None:
    info, stated = finfo(profile), FIXTURES.profile(profile)
    largest = np.array(info.max, DTYPES[profile])
    assert ulp(stated, 0.0) == float(info.smallest_subnormal)
    assert ulp(stated, float(largest)) == float(largest) - float(np.nextafter(largest, np.zeros_like(largest)))


@given(value=st.floats(min_value=0, max_value=2.0**100, width=32))
def test_ulp_of_f32_at_any_magnitude(value: float) -> None:
    assert ulp(F32, value) == spacing("f32", value)


def test_the_policy_is_the_documented_one() -> None:
    assert (POLICY.floor_factor, POLICY.ulps) == (3.0, 2.0)


GOLDEN: Array = np.array([4.0, 0.0, 0.0, 0.0], np.float32)
"""Peak 4, root mean square 2, ulp in f32 2^-21."""


def test_a_large_floor_counts_by_the_factor() -> None:
    assert tolerance([0.5, 0.25], GOLDEN, F32, POLICY) == Tolerance(rms=1.5, max=0.75)


def test_a_small_floor_gives_way_to_ulps_at_the_peak() -> None:
    assert tolerance([0.0, 0.0], GOLDEN, F32, POLICY) == Tolerance(rms=2.0**-20 / 2, max=2.0**-20 / 4)
    assert tolerance([1.0, 0.0], GOLDEN, F32, POLICY) == Tolerance(rms=3.0, max=2.0**-22)
    assert tolerance([0.0, 1.0], GOLDEN, F32, POLICY) == Tolerance(rms=2.0**-21, max=3.0)


def test_ulps_are_those_of_the_profile() -> None:
    least = {profile: tolerance([0.0, 0.0], GOLDEN, FIXTURES.profile(profile), POLICY).max for profile in DTYPES}
    assert least == {"f64": 2.0**-51, "f32": 2.0**-22, "f16": 2.0**-9, "bf16": 2.0**-6}


def test_both_constants_come_from_the_policy() -> None:
    other = Policy.model_validate(POLICY.model_dump() | {"floor_factor": 5.0, "ulps": 7.0})
    assert tolerance([0.5, 0.0], GOLDEN, F32, other) == Tolerance(rms=2.5, max=7 * 2.0**-23)


@pytest.mark.parametrize("golden", [np.zeros(3, np.float32), np.array([-0.0]), np.zeros((0, 2))])
def test_a_golden_of_zeros_tolerates_nothing(golden: Array) -> None:
    assert tolerance([1.0, 1.0], golden, F32, POLICY) == Tolerance(rms=0.0, max=0.0)


def test_negative_values_have_the_same_peak() -> None:
    assert tolerance([0.0, 0.0], -GOLDEN, F32, POLICY) == tolerance([0.0, 0.0], GOLDEN, F32, POLICY)


@pytest.mark.parametrize("scale", [2.0**-600, 2.0**600])
def test_goldens_whose_squares_no_float_holds(scale: float) -> None:
    extreme = tolerance([0.0, 0.0], GOLDEN.astype(np.float64) * scale, FIXTURES.profile("f64"), POLICY)
    assert math.isclose(extreme.rms, 2.0**-50, rel_tol=1e-12)
    assert extreme.max == 2.0**-51
