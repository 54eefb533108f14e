"""One tap against its golden, at the boundaries."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conformance.judging.compare import Error, TapVerdict, compare, measure
from conformance.judging.tolerance import Tolerance
from gemma4_contract import TapSpec
from gemma4_contract.models import Picks, Stride
from gemma4_contract.profiles import installed_profiles
from gemma4_contract.tensors import Array, dtype_name

ANY = Tolerance(rms=1e9, max=1e9)
NONE = Tolerance(rms=0.0, max=0.0)


def spec(golden: Array, cls: str = "floor") -> TapSpec:
    return TapSpec.model_validate(
        {
            "name": "y",
            "parents": [],
            "axes": list("BLD"[-golden.ndim :]),
            "dtype": dtype_name(golden),
            "shape": list(golden.shape),
            "sha256": "0" * 64,
            "class": cls,
        }
    )


def judged(
    answer: Any,
    golden: Any,
    allowed: Tolerance = ANY,
    *,
    valid: Array | None = None,
    cls: str = "floor",
    profile: str = "f32",
) -> TapVerdict:
    golden = np.asarray(golden, np.float32) if isinstance(golden, list) else golden
    arithmetic = installed_profiles()[profile]
    return compare(spec(golden, cls), answer, golden, profile=arithmetic, valid=valid, allowed=allowed)


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


# Measuring


def test_errors_are_relative_to_the_golden() -> None:
    assert measure(f32(3, 5), f32(3, -4)) == Error(rms=math.sqrt(81 / 25), max=9 / 4, worst=(1,))


def test_masked_entries_count_neither_as_error_nor_as_scale() -> None:
    answer, golden = f32(3, 5, 70), f32(3, 4, 900)
    assert measure(answer, golden, np.array([True, True, False])) == Error(rms=0.2, max=0.25, worst=(1,))


def test_sums_are_accumulated_in_float64() -> None:
    golden = np.full(3 * 10**5, 0.1, np.float32)
    answer = golden.copy()
    answer[0] = 0.2
    step = float(answer[0]) - float(golden[0])
    expected = step / (float(golden[0]) * math.sqrt(golden.size))
    assert math.isclose(measure(answer, golden).rms, expected, rel_tol=1e-12)


def test_an_error_under_a_golden_of_zeros_is_infinite() -> None:
    assert measure(f32(0, 1e-45), f32(0, 0)) == Error(rms=math.inf, max=math.inf, worst=(1,))
    assert measure(f32(0, -0.0), f32(0, 0)) == Error(rms=0.0, max=0.0, worst=(0,))


def test_nothing_to_measure_is_no_error() -> None:
    empty = np.zeros((0, 3), np.float32)
    assert measure(empty, empty) == Error(rms=0.0, max=0.0, worst=())
    assert measure(f32(math.nan), f32(1), np.array([False])) == Error(rms=0.0, max=0.0, worst=(0,))


# At the tolerance


@pytest.mark.parametrize("which", ["rms", "max"])
@pytest.mark.parametrize("seed", range(5))
def test_an_error_equal_to_the_tolerance_passes_and_one_ulp_more_fails(which: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    golden = rng.standard_normal((3, 4)).astype(np.float32)
    answer = golden + 1e-3 * rng.standard_normal((3, 4)).astype(np.float32)
    error = getattr(measure(answer, golden), which)

    def status(limit: float) -> str:
        limits = {"rms": math.inf, "max": math.inf, which: float(limit)}
        return judged(answer, golden, Tolerance(**limits)).status

    assert status(error) == "pass"
    assert status(np.nextafter(error, math.inf)) == "pass"
    assert status(np.nextafter(error, 0)) == "fail"


def test_ratio_is_the_larger_of_both_errors_over_their_tolerances() -> None:
    answer, golden = f32(3, 5), f32(3, 4)
    assert judged(answer, golden, Tolerance(rms=0.4, max=0.25)).ratio == 1.0
    assert judged(answer, golden, Tolerance(rms=0.1, max=0.25)).ratio == 2.0
    assert judged(answer, golden, NONE).ratio == math.inf
    assert judged(golden, golden, NONE).ratio == 0.0
    assert math.isnan(judged(None, golden).ratio)


# Values that are no ordinary numbers


@pytest.mark.parametrize("zeros", [f32(0.0, 0.0), f32(-0.0, -0.0)])
@pytest.mark.parametrize("cls", ["floor", "exact"])
def test_zeros_of_either_sign_are_equal(zeros: Array, cls: str) -> None:
    assert judged(zeros, f32(0.0, -0.0), NONE, cls=cls).status == "pass"


def test_golden_of_zeros_accepts_zeros_alone() -> None:
    assert judged(f32(0, 1e-45), f32(0, 0), ANY).status == "fail"


def test_subnormals_are_not_flushed() -> None:
    golden, answer = f32(4 * 2.0**-149), f32(5 * 2.0**-149)
    assert measure(answer, golden).max == 0.25
    assert judged(answer, golden, Tolerance(rms=0.2, max=0.2)).status == "fail"


PROFILES = {"f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}
STRANGE = {
    "nan": f32(math.nan),
    "inf": f32(math.inf),
    "-inf": f32(-math.inf),
    "signalling nan": np.array([0x7FA00000], np.uint32).view(np.float32),
    "bfloat16 nan": np.array([math.nan], ml_dtypes.bfloat16),
    "bfloat16 signalling nan": np.array([0x7F81], np.uint16).view(ml_dtypes.bfloat16),
    "float16 inf": np.array([math.inf], np.float16),
    "float64 nan": np.array([math.nan], np.float64),
}


@pytest.mark.parametrize("what", STRANGE)
def test_nan_and_infinity_fail_in_valid_rows_and_pass_in_masked_ones(what: str) -> None:
    golden = np.ones((1, 3, 2), np.float32)
    answer = golden.astype(STRANGE[what].dtype)
    answer[0, 1, 1] = STRANGE[what][0]
    valid = np.ones(golden.shape, bool)
    profile = next(name for name, dtype in PROFILES.items() if dtype == answer.dtype.name)

    failed = judged(answer, golden, ANY, valid=valid, profile=profile)
    assert failed.status == "fail"
    assert failed.fault == "1 NaN or infinite values, the first at [0, 1, 1], expected none"
    assert judged(answer, golden, ANY, profile=profile).fault == failed.fault

    valid[:, 1] = False
    assert judged(answer, golden, NONE, valid=valid, profile=profile).status == "pass"


def test_a_huge_float64_answer_fails_without_a_warning() -> None:
    verdict = judged(np.array([1e200]), f32(1.0), ANY)
    assert verdict.status == "fail"
    assert verdict.fault == "got 1e+200, expected 1 at [0]"


# Shape and dtype


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 1), (1, 2, 3), (6,), ()])
def test_a_wrong_shape_fails(shape: tuple[int, ...]) -> None:
    verdict = judged(np.zeros(shape, np.float32), np.zeros((3, 2), np.float32))
    assert verdict.status == "fail"
    assert verdict.fault == f"shape {list(shape)}, expected [3, 2] (L D)"


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "complex64", "object"])
def test_a_float_tap_wants_floats(dtype: str) -> None:
    verdict = judged(np.ones(2).astype(dtype), f32(1, 1))
    assert verdict.status == "fail"
    assert verdict.fault == f"dtype {dtype}, expected float32 or float64"


TOO_NARROW = {
    "f64": {"float32", "bfloat16", "float16"},
    "f32": {"bfloat16", "float16"},
    "bf16": {"float16"},  # its exponent is too short
    "f16": {"bfloat16"},  # its fraction is
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", PROFILES.values())
def test_an_answer_may_be_wider_than_its_profile_and_not_narrower(profile: str, dtype: str) -> None:
    golden = np.array([1.5, -2.25, 0.0], np.float32)
    verdict = judged(golden.astype(np.dtype(dtype)), golden, NONE, profile=profile)
    assert verdict.status == ("fail" if dtype in TOO_NARROW[profile] else "pass")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "bool"])
@pytest.mark.parametrize("golden", [np.ones(2, np.int32), np.ones(2, np.uint8)])
def test_an_integer_tap_wants_integers(dtype: str, golden: Array) -> None:
    verdict = judged(np.ones(2).astype(np.dtype(dtype)), golden, cls="exact")
    assert verdict.status == "fail"
    assert verdict.fault == f"dtype {dtype}, expected an integer dtype"


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "uint32"])
def test_any_integer_dtype_will_do(dtype: str) -> None:
    assert judged(np.array([7, 9], dtype), np.array([7, 9], np.int32), cls="exact").status == "pass"
    assert judged(np.array([7, 8], dtype), np.array([7, 9], np.int32), cls="exact").status == "fail"


def test_no_answer_is_narrowed() -> None:
    golden = np.array([1.0])
    assert measure(np.array([1.0 + 2**-40]), golden).max == 2**-40
    assert measure(np.array([1.0078125], ml_dtypes.bfloat16), golden).max == 2**-7


def test_a_bfloat16_answer_is_shown_as_a_number() -> None:
    assert (
        judged(np.array([1.5], ml_dtypes.bfloat16), f32(1.0), NONE, profile="bf16").fault
        == "got 1.5, expected 1 at [0]"
    )


# Class exact


def test_exact_ignores_the_tolerance() -> None:
    golden = f32(1.0, 3.0)
    off = np.nextafter(golden, np.float32(9), dtype=np.float32)
    assert judged(golden, golden, ANY, cls="exact").status == "pass"
    assert judged(off, golden, ANY, cls="floor").status == "pass"
    assert judged(off, golden, ANY, cls="exact").status == "fail"
    assert judged(np.array([1, 2], np.int32), np.array([1, 3], np.int32), ANY, cls="exact").status == "fail"


def test_exact_holds_for_valid_rows_alone() -> None:
    golden, answer = f32(1.0, 3.0), f32(1.0, 4.0)
    assert judged(answer, golden, ANY, cls="exact", valid=np.array([True, False])).status == "pass"
    assert judged(answer, golden, ANY, cls="exact", valid=np.array([False, True])).status == "fail"


# Order of checks: present, shape, dtype, finite, value


def test_an_absent_tap_is_no_failure_of_its_own() -> None:
    verdict = judged(None, f32(1.0))
    assert (verdict.status, verdict.fault, verdict.error) == ("absent", "", None)


def test_shape_is_checked_before_dtype() -> None:
    assert judged(np.ones(3, np.int32), f32(1, 1)).fault.startswith("shape")


def test_dtype_is_checked_before_finiteness() -> None:
    assert judged(np.array([complex(math.nan, 0)]), f32(1)).fault.startswith("dtype")


def test_finiteness_is_checked_before_the_value() -> None:
    verdict = judged(f32(99, math.nan), f32(1, 1), NONE)
    assert verdict.fault == "1 NaN or infinite values, the first at [1], expected none"
    assert verdict.error is None


@pytest.mark.parametrize(
    ("value", "fault"),
    [(5.0, "got 5, expected 1 at [0, 63, 48]"), (math.nan, "1 NaN or infinite values, the first at [0, 63, 48]")],
)
def test_places_are_those_in_the_port_s_tensor(value: float, fault: str) -> None:
    golden = np.ones((1, 2, 3), np.float32)
    answer = golden.copy()
    answer[0, 1, 2] = value
    rows, channels = [0, 63], Stride(start=0, step=24, count=3)
    picked = spec(golden).model_copy(
        update={"axes": ["B", "L", "D"], "picks": Picks(whole=[1, 64, 72], taken={"L": rows, "D": channels}, rms=1.0)}
    )
    verdict = compare(picked, answer, golden, profile=installed_profiles()["f32"], valid=None, allowed=NONE)
    assert verdict.fault.startswith(fault)


def test_a_wrong_value_is_told_with_place_error_and_tolerance() -> None:
    allowed = Tolerance(rms=1e-3, max=1e-3)
    verdict = judged(f32(3, 5), f32(3, 4), allowed)
    assert verdict.fault == "got 5, expected 4 at [1]"
    assert verdict.error == Error(rms=0.2, max=0.25, worst=(1,))
    assert verdict.tolerance == allowed
