"""Measuring floors, with fake implementations whose errors are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.adapters.base import Request
from conformance.adapters.registry import ADAPTERS, AdapterUnavailable, BadOption, _Entry
from conformance.calibration import honest
from conformance.calibration.error_table import rounded_up
from conformance.calibration.floors import measure_floors, with_measured
from conformance.calibration.honest import honest_variants
from conformance.judging.probe import CASE, require_exact_products
from conformance.known_failures import KnownFailures
from gemma4_contract import Floors
from gemma4_contract.tensors import Array
from reference.cases import Draft
from reference.cases.draft import tap
from reference.export.errors import ExportError
from reference.oracle.summation import ORDERS
from tests.support.fakes import Port, Taps, raiser, skipper
from tests.support.installed import FIXTURES

GOLDEN: Array = np.array([[4.0, 2.0], [1.0, 0.0]])
"""Peak 4; the sum of squares is 21."""
FIRST, SECOND = "module/softcap/first", "module/softcap/second"


def drafts(seed: int, **facts: Any) -> Iterator[Draft]:
    """Two cases; the input tells the seed."""
    for name in (FIRST, SECOND):
        yield Draft(
            id=name,
            kind="softcap",
            level="L1",
            topic="logits",
            purpose="A test.",
            taps=[tap("y", "L V")],
            inputs={"seed": np.full(1, seed, np.float32)},
            params={"cap": 30.0},
            **facts,
        )


def golden_of(_: Draft) -> Mapping[str, Array]:
    return {"y": GOLDEN}


@pytest.fixture(autouse=True)
def two_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "all_drafts", drafts)
    monkeypatch.setattr(honest, "by_oracle", golden_of)
    monkeypatch.setattr(honest, "require_exact_products", lambda *_: None)


def off_by(errors: Mapping[str, float], *, family: str, per_seed: float = 0.0) -> Port:
    """Errs at the peak by so much in each case, and by `per_seed` more in every later seed."""

    def answer(request: Request) -> Taps:
        y = GOLDEN.copy()
        y[0, 0] += errors.get(request.case, 0.0) + per_seed * float(request.inputs["seed"][0])
        return {"y": y}

    return Port(answer, family=family)


def measured(adapters: Mapping[str, Port], *, seeds: int = 1, profile: str = "f32") -> Floors:
    return measure_floors(FIXTURES, profile, adapters, seeds, "the command", lambda *_: None)


def test_the_floor_is_the_largest_error_of_any_variant() -> None:
    ports = {
        "one": off_by({FIRST: 1, SECOND: 8}, family="a"),
        "two": off_by({FIRST: -6, SECOND: 0}, family="a"),
        "three": off_by({FIRST: 2}, family="b"),
    }
    result = measured(ports).floors
    assert set(result) == {FIRST, SECOND}
    assert result[FIRST]["y"] == [1.4, 1.5]  # 6 / sqrt(21) = 1.309, 6 / 4
    assert result[SECOND]["y"] == [1.8, 2.0]  # 8 / sqrt(21) = 1.746, 8 / 4


def test_the_floor_is_the_largest_error_over_all_seeds() -> None:
    port = off_by({FIRST: 2}, family="a", per_seed=4)
    assert measured({"one": port}, seeds=1).floors[FIRST]["y"][1] == 0.5
    assert measured({"one": port}, seeds=3).floors[FIRST]["y"][1] == 2.5
    assert {float(request.inputs["seed"][0]) for request in port.asked} == {0.0, 1.0, 2.0}


def test_rms_and_maximum_may_come_from_different_variants() -> None:
    peaked = off_by({FIRST: 4}, family="a")
    spread = Port(lambda _: {"y": GOLDEN + 3}, family="b")
    floor = measured({"peaked": peaked, "spread": spread}).floors[FIRST]["y"]
    assert floor == [1.4, 1.0]  # 6 / sqrt(21) = 1.309 of the second, 4 / 4 of the first


def test_an_exact_implementation_sets_a_floor_of_zero() -> None:
    assert measured({"one": off_by({}, family="a")}).floors[FIRST]["y"] == [0.0, 0.0]


def test_the_table_says_how_it_was_made() -> None:
    table = measured({"one": off_by({}, family="a"), "two": off_by({}, family="b")}, seeds=2)
    assert (table.profile, table.seeds, table.command) == ("f32", 2, "the command")
    assert [(v.name, v.family, v.version) for v in table.variants] == [("one", "a", "1"), ("two", "b", "1")]


# What sets no floor


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    port = off_by({SECOND: value}, family="a")
    with pytest.raises(ExportError, match=rf"{SECOND}: bad answers y with NaN or infinity, which sets no floor"):
        measured({"bad": port})


def test_low_precision_products_are_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "require_exact_products", require_exact_products)

    def answer(request: Request) -> Taps:
        assert request.case == CASE  # nothing else is asked
        x, weight = (request.inputs[name].astype(np.float16).astype(np.float64) for name in ("x", "weight"))
        return {"y": x @ weight.T}

    with pytest.raises(AdapterUnavailable, match=r"ENVIRONMENT: bad: products err by .*MLX_ENABLE_TF32=0"):
        measured({"bad": Port(answer)})


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ExportError, match=rf"{FIRST}: bad answers y in shape \(1, 2\), not \(2, 2\)"):
        measured({"bad": Port(lambda _: {"y": GOLDEN[1:]})})


def test_an_implementation_that_breaks_down_is_not_passed_over() -> None:
    with pytest.raises(ExportError, match=rf"{FIRST}: bad: the implementation raised ValueError: broken"):
        measured({"bad": raiser(ValueError("broken"))})


def test_a_skip_sets_no_floor() -> None:
    assert measured({"none": skipper()}).floors == {}
    both = measured({"none": skipper(), "one": off_by({FIRST: 4}, family="a")})
    assert both.floors[FIRST]["y"][1] == 1.0


def test_known_failures_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wild.txt").write_text(f"f32 {FIRST}  # known\n")
    monkeypatch.setattr(KnownFailures, "of", lambda impl: KnownFailures.read(tmp_path / f"{impl}.txt"))
    wild = off_by({FIRST: 400, SECOND: 4}, family="a")
    ports = {"wild": wild, "tame": off_by({FIRST: 2, SECOND: 2}, family="b")}
    table = measured(ports)
    assert table.floors[FIRST]["y"][1] == 0.5
    assert table.floors[SECOND]["y"][1] == 1.0
    assert [request.case for request in wild.asked] == [SECOND]
    assert measured(ports, profile="bf16").floors[FIRST]["y"][1] == 100.0


def test_cases_of_other_profiles_and_exact_ones_have_no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    port = off_by({}, family="a")
    monkeypatch.setattr(honest, "all_drafts", lambda seed: drafts(seed, profiles=("bf16",)))
    assert measured({"one": port}).floors == {}
    assert set(measured({"one": port}, profile="bf16").floors) == {FIRST, SECOND}
    monkeypatch.setattr(honest, "all_drafts", lambda seed: drafts(seed, exact_in="f32"))
    assert measured({"one": port}).floors == {}


def test_integers_have_no_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "by_oracle", lambda _: {"y": np.ones((2, 2), np.int32)})
    port = Port(lambda request: dict.fromkeys(request.want, GOLDEN))
    assert measured({"one": port}).floors == {}
    assert {request.want for request in port.asked} == {()}


# Leave one family out


def test_the_ratio_is_a_family_s_error_over_the_floor_of_the_others() -> None:
    ports = {
        "one": off_by({FIRST: 4, SECOND: 2}, family="a"),
        "two": off_by({FIRST: 8, SECOND: 2}, family="a"),  # of the same family: no witness for "one"
        "three": off_by({FIRST: 2, SECOND: 3}, family="b"),
    }
    assert measured(ports).leave_one_family_out == {"a": 4.0, "b": 1.5}


def test_rms_and_maximum_are_both_held_against_the_others() -> None:
    """The same maximum, but an RMS error of 4 / sqrt(21) against 2 / sqrt(21)."""
    ports = {
        "spread": Port(lambda _: {"y": GOLDEN + 2}, family="a"),
        "peaked": off_by({FIRST: 2, SECOND: 2}, family="b"),
    }
    assert measured(ports).leave_one_family_out == {"a": 2.0, "b": 1.0}


def test_with_three_families_the_larger_of_the_others_counts() -> None:
    ports = {name: off_by({FIRST: error, SECOND: error}, family=name) for name, error in (("a", 6), ("b", 3), ("c", 1))}
    assert measured(ports).leave_one_family_out == {"a": 2.0, "b": 0.5, "c": 0.167}


def test_errors_within_two_ulps_are_never_over_the_tolerance() -> None:
    """Where the others make no error at all, the tolerance is 2 ulps and not 0: an error of 1 ulp is half of it."""
    one_ulp = 2.0**-21
    ports = {"one": off_by({FIRST: one_ulp}, family="a"), "two": off_by({}, family="b")}
    assert measured(ports).leave_one_family_out == {"a": 1.5}  # half the tolerance, in units of floor: 3 is the limit


def test_a_single_family_has_no_ratio() -> None:
    assert measured({"one": off_by({FIRST: 4}, family="a")}).leave_one_family_out == {}


# Rounding


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_rounding_is_up_and_to_two_digits(error: float) -> None:
    rounded = rounded_up(error)
    assert error <= rounded <= error * 1.1 * (1 + 1e-12)
    assert rounded == float(f"{rounded:.1e}")


@pytest.mark.parametrize(
    ("error", "rounded"),
    [
        (0.0, 0.0),
        (1.4e-7, 1.4e-7),
        (1.41e-7, 1.5e-7),
        (9.91e-8, 1.0e-7),
        (1.2000000000000002e-7, 1.3e-7),
        (5e-324, 5e-324),
    ],
)
def test_rounding_of_some_numbers(error: float, rounded: float) -> None:
    assert rounded_up(error) == rounded


# Who sets floors


NAMED = ("mlx_impl", "mlx_lm", "transformers", "transformers_sdpa", "pure_python")
"""The adapters whose errors may widen everybody's tolerances: the errors of another are reviewed first."""
ORACLES = (*(f"oracle {order}" for order in ORDERS), "oracle fused")


def test_the_registry_says_who_sets_floors() -> None:
    assert tuple(name for name, entry in ADAPTERS.items() if entry.sets_floors) == NAMED


@pytest.mark.parametrize("profile", ["f64", "f32", "bf16", "f16"])
def test_these_set_the_floors_of_a_profile(profile: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx_lm")
    expected = {
        "f64": ("transformers", "pure_python", *ORACLES, "oracle reciprocal"),
        "f32": (*NAMED[:-1], *ORACLES),
        "bf16": (*NAMED[:-1], *ORACLES),
        "f16": (*NAMED[:-1], *ORACLES),
    }
    assert tuple(honest_variants(profile)) == expected[profile]
    assert tuple(variant.name for variant in FIXTURES.floors(profile).variants) == expected[profile]


def test_an_adapter_sets_no_floor_unless_the_registry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(honest_variants("f32"))
    new = _Entry(module="oracle", factory="OracleAdapter", cure="none")
    monkeypatch.setattr(honest, "ADAPTERS", {**ADAPTERS, "new": new})
    assert set(honest_variants("f32")) == before
    monkeypatch.setattr(honest, "ADAPTERS", {**ADAPTERS, "new": dataclasses.replace(new, sets_floors=True)})
    monkeypatch.setattr(honest, "create", lambda name: Port(lambda _: {}, family=name))
    assert "new" in honest_variants("f32")


def test_every_implementation_of_a_profile_sets_its_floors() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mlx_lm")
    f32, f64 = honest_variants("f32"), honest_variants("f64")
    assert {"mlx_impl", "mlx_lm", "transformers", "transformers_sdpa"} < set(f32)
    assert {f"oracle {order}" for order in ORDERS} <= set(f32)
    assert "mlx_impl" not in f64
    assert "transformers" in f64
    assert {adapter.hello().family for adapter in f32.values()} == {"mlx", "torch", "numpy"}


def test_some_cases_are_measured_and_the_others_stay() -> None:
    stored = measured({"one": off_by({FIRST: 1, SECOND: 8}, family="a"), "two": off_by({}, family="b")})
    ports = {"one": off_by({FIRST: 4, SECOND: 4}, family="a"), "two": off_by({FIRST: 1}, family="b")}
    second = measure_floors(FIXTURES, "f32", ports, 1, "another command", lambda *_: None, SECOND)
    assert set(second.floors) == {SECOND}
    merged = with_measured(stored, second)
    assert merged.floors == {FIRST: stored.floors[FIRST], SECOND: second.floors[SECOND]}
    assert merged.command == "the command"
    ratios = (stored.leave_one_family_out["a"], second.leave_one_family_out["a"])
    assert ratios[0] != ratios[1]
    assert merged.leave_one_family_out["a"] == max(ratios)


def test_cases_that_point_into_a_golden_are_measured_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(honest, "all_drafts", lambda seed: drafts(seed, pointer=(FIRST, 1)))
    port = {"one": off_by({FIRST: 1, SECOND: 8}, family="a")}
    assert measure_floors(FIXTURES, "f32", port, 1, "", lambda *_: None, FIRST).floors[FIRST]["y"] == [1.8, 2.0]
    none = measure_floors(FIXTURES, "f32", port, 1, "", lambda *_: None, SECOND)
    with pytest.raises(BadOption, match="matches no case with a golden of its own"):
        with_measured(measured(port), none)


def test_other_variants_or_seeds_do_not_mix() -> None:
    stored = measured({"one": off_by({}, family="a")})
    for other in (measured({"other": off_by({}, family="a")}), measured({"one": off_by({}, family="a")}, seeds=2)):
        with pytest.raises(BadOption, match="other variants, versions or seeds"):
            with_measured(stored, other)
