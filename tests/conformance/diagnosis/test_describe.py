"""An error in words: every sentence where it belongs, and silence where nothing is remarkable.

Shape letters: B batch, L query length, H heads, K key/value heads, E head dim, D hidden, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conformance.diagnosis.describe import in_words
from conformance.diagnosis.evidence import Evidence
from conformance.judging.compare import TapVerdict, compare
from conformance.judging.examine import CaseVerdict
from conformance.judging.tolerance import Tolerance
from gemma4_contract import TapSpec
from gemma4_contract.profiles import installed_profiles
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.loading import config_of
from tests.support.installed import FIXTURES

CASE = FIXTURES.case("forward/e2b-mini/uniform-l19/no-cache")
_CONFIG = config_of(FIXTURES.model_dir("e2b-mini"))
assert _CONFIG is not None
CONFIG: TextConfig = _CONFIG
"""Layers: sliding but for 4 and 9, which see all; own keys and values up to 4. Window 8, D 48, P 16, E 16 and 32."""

BLD, BHLE, BKLE, BLV = ("B", "L", "D"), ("B", "H", "L", "E"), ("B", "K", "L", "E"), ("B", "L", "V")


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


GOLDEN = normal(1, 19, 48)
HEADS = normal(1, 4, 19, 16)


def spec_of(name: str, axes: Sequence[str], shape: Sequence[int]) -> TapSpec:
    return TapSpec(name=name, parents=[], axes=list(axes), dtype="F32", shape=list(shape), sha256="0" * 64, cls="floor")


def said(
    golden: Array,
    answer: Array,
    axes: Sequence[str] = BLD,
    *,
    name: str = "tap",
    config: TextConfig | None = None,
    before: Sequence[TapVerdict] = (),
    valid: Array | None = None,
    rms: float = 1e-6,
    profile: str = "f32",
    inputs: Mapping[str, Array] | None = None,
) -> list[str]:
    """The description of an answer to one tap that comes after other taps."""
    spec = spec_of(name, axes, golden.shape)
    allowed = Tolerance(rms=rms, max=10 * rms)
    tap = compare(spec, answer, golden, profile=installed_profiles()[profile], valid=valid, allowed=allowed)
    verdict = CaseVerdict(case=CASE, outcome="fail", taps=(*before, tap), answer={name: answer})
    return in_words(Evidence(verdict=verdict, golden={name: golden}, inputs=inputs or {}), [spec], config, profile)


def noisy(x: Array, size: float = 1.0, seed: int = 9) -> Array:
    """An error without a pattern."""
    return x + np.float32(size) * normal(*x.shape, seed=seed)


def wrong_rows(*rows: int, of: Array = GOLDEN) -> Array:
    answer = of.copy()
    answer[:, list(rows)] = noisy(of)[:, list(rows)]
    return answer


# Silence


def test_an_error_without_a_pattern_is_not_put_into_words() -> None:
    assert said(GOLDEN, noisy(GOLDEN), config=CONFIG) == []
    assert said(GOLDEN, noisy(GOLDEN, 1e-4), config=CONFIG) == []
    assert said(HEADS, noisy(HEADS), BHLE, name="model.layers.0.self_attn.q_rope", config=CONFIG) == []


def test_nothing_is_said_where_nothing_fails() -> None:
    assert said(GOLDEN, GOLDEN, config=CONFIG) == []


@pytest.mark.parametrize("answer", [GOLDEN[:, 1:], GOLDEN[0]])
def test_a_wrong_shape_is_told_elsewhere(answer: Array) -> None:
    assert said(GOLDEN, answer, config=CONFIG) == []


def test_a_figure_of_the_whole_model_has_no_tensor() -> None:
    figure = TapVerdict(name="logits.kl", status="fail", fault="got 1, expected 0")
    verdict = CaseVerdict(case=CASE, outcome="fail", taps=(figure,), answer={"logits": GOLDEN})
    evidence = Evidence(verdict=verdict, golden={"logits": GOLDEN})
    assert in_words(evidence, [spec_of("logits", BLV, GOLDEN.shape)], CONFIG, "f32") == []


# A factor


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (-1, "-1 times the golden (-1)"),
        (2, "2 times the golden (2)"),
        (0.5, "0.5 times the golden (1/2)"),
        (2**-0.5, "0.707107 times the golden (1/sqrt(2))"),
        (48**0.5, "6.9282 times the golden (sqrt(D))"),
        (48**-0.5, "0.144338 times the golden (1/sqrt(D))"),
        (160**0.5, "12.6491 times the golden (sqrt(N*P))"),
        (30, "30 times the golden (the soft cap)"),
        (1 / 30, "0.0333333 times the golden (1/soft cap)"),
        (4, "4 times the golden (sqrt(P) or sqrt(head_dim))"),
        (1.37, "1.37 times the golden"),
        (1.001, "1.001 times the golden"),
    ],
)
def test_a_constant_factor_is_told_by_its_name(factor: float, told: str) -> None:
    answer = noisy(GOLDEN * np.float32(factor), 1e-7 * abs(factor))
    assert said(GOLDEN, answer, config=CONFIG) == [f"the answer is {told}"]


def test_rounding_does_not_hide_a_factor() -> None:
    answer = (GOLDEN * np.float32(48**0.5)).astype(ml_dtypes.bfloat16)
    (told,) = said(GOLDEN, answer, config=CONFIG, profile="bf16", rms=1e-2)
    assert told.endswith(" times the golden (sqrt(D))")


def test_without_a_model_there_are_only_plain_constants() -> None:
    assert said(GOLDEN, 2 * GOLDEN) == ["the answer is 2 times the golden (2)"]
    assert said(GOLDEN, 30 * GOLDEN) == ["the answer is 30 times the golden"]


def test_a_factor_that_leaves_most_of_the_error_is_none() -> None:
    assert said(GOLDEN, noisy(2 * GOLDEN)) == []


def test_an_answer_of_zeros_is_no_factor_and_holds_no_numbers_of_16_bits() -> None:
    assert said(GOLDEN, np.zeros_like(GOLDEN)) == []


# Another order


@pytest.mark.parametrize(("axis", "letter"), [(1, "H"), (3, "E")])
def test_the_right_values_in_another_order(axis: int, letter: str) -> None:
    permuted = np.flip(HEADS, axis).copy()
    assert said(HEADS, permuted, BHLE) == [f"the values are right, in another order along {letter}"]


def test_tokens_that_change_places_are_told_as_rows_too() -> None:
    swapped = GOLDEN.copy()
    swapped[:, [2, 5]] = swapped[:, [5, 2]]
    order, rows = said(GOLDEN, swapped)
    assert order == "the values are right, in another order along L"
    assert rows == "2 of 19 rows are wrong: 2, 5"


def test_other_values_are_no_other_order() -> None:
    assert said(HEADS, np.flip(noisy(HEADS, 0.1), 1).copy(), BHLE) == []


# Rows


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (range(8, 19), "it begins at row 8, where the window is full"),
        (range(5, 19), "it begins at row 5"),
        (range(18, 19), "it begins at row 18"),
        ((0,), "1 of 19 rows are wrong: 0"),
        ((3, 7, 11), "3 of 19 rows are wrong: 3, 7, 11"),
        (range(0, 18, 2), "9 of 19 rows are wrong: 0, 2, 4, 6, 8, 10, 12, 14 ..."),
    ],
)
def test_the_rows_that_are_wrong_are_told(rows: Sequence[int], told: str) -> None:
    assert said(GOLDEN, wrong_rows(*rows), config=CONFIG) == [told]


def test_the_window_is_the_model_s() -> None:
    assert said(GOLDEN, wrong_rows(*range(8, 19))) == ["it begins at row 8"]
    wider = dataclasses.replace(CONFIG, sliding_window=5)
    assert said(GOLDEN, wrong_rows(*range(5, 19)), config=wider) == ["it begins at row 5, where the window is full"]


def test_rows_within_the_tolerance_are_not_wrong() -> None:
    answer = noisy(GOLDEN, 1e-3)
    answer[:, 4:] = noisy(GOLDEN)[:, 4:]
    assert said(GOLDEN, answer, rms=1e-2) == ["it begins at row 4"]


def test_an_error_that_grows_with_the_position() -> None:
    growing = GOLDEN + normal(*GOLDEN.shape, seed=3) * np.arange(19, dtype=np.float32)[:, None] / 100
    assert said(GOLDEN, growing) == ["it begins at row 1", "it grows with the position"]
    assert said(GOLDEN, GOLDEN + (growing - GOLDEN)[:, ::-1]) == ["18 of 19 rows are wrong: 0, 1, 2, 3, 4, 5, 6, 7 ..."]


def test_two_tokens_are_too_few_to_speak_of_rows() -> None:
    short = GOLDEN[:, :2].copy()
    assert said(short, wrong_rows(1, of=short)) == []


def test_pads_say_nothing() -> None:
    valid = np.ones(GOLDEN.shape, bool)
    valid[:, :6] = False
    answer = noisy(GOLDEN)
    answer[:, :6] = np.nan
    assert said(GOLDEN, answer, valid=valid) == ["it begins at row 6"]


# Heads and channels


def wrong_at(index: tuple[Any, ...], of: Array = HEADS) -> Array:
    answer = of.copy()
    answer[index] = noisy(of)[index]
    return answer


def test_the_heads_that_are_wrong_are_told() -> None:
    assert said(HEADS, wrong_at((0, [1, 3])), BHLE) == ["only heads 1, 3 of 4 are wrong"]
    assert said(HEADS, wrong_at((0, [2])), BKLE) == ["only key/value heads 2 of 4 are wrong"]


FULL = normal(1, 4, 19, 32)
TURNING = [0, 1, 2, 3, 16, 17, 18, 19]
"""A quarter of the pairs of a full layer's head turn: j and j + 16 for j < 4."""


@pytest.mark.parametrize("name", ["q_rope", "k_rope"])
def test_an_error_in_rotated_channels_alone(name: str) -> None:
    told = said(FULL, wrong_at((..., TURNING), FULL), BHLE, name=f"model.layers.4.self_attn.{name}", config=CONFIG)
    assert told == ["only rotated channels are wrong (j and j + 16 for j < 4)"]


@pytest.mark.parametrize(
    ("layer", "tap", "channels", "config"),
    [
        (4, "q_rope", [*TURNING, 4], CONFIG),  # a channel that does not turn
        (4, "q_norm", TURNING, CONFIG),  # nothing has been rotated yet
        (0, "q_rope", TURNING, CONFIG),  # all channels of a sliding layer turn
        (4, "q_rope", TURNING, None),
    ],
)
def test_rotated_channels_are_told_of_full_layers_after_rope_alone(
    layer: int, tap: str, channels: list[int], config: TextConfig | None
) -> None:
    answer = wrong_at((..., channels), FULL)
    assert said(FULL, answer, BHLE, name=f"model.layers.{layer}.self_attn.{tap}", config=config) == []


# NaN, 16 bits


def test_what_is_not_finite_is_counted_and_nothing_else_is_said() -> None:
    answer = 2 * GOLDEN
    answer[0, 3, :5] = np.nan
    answer[0, 4, :2] = -np.inf
    assert said(GOLDEN, answer, config=CONFIG) == ["7 values are NaN or infinite"]


def bf16(x: Array) -> Array:
    rounded: Array = x.astype(ml_dtypes.bfloat16).astype(x.dtype)
    return rounded


GRID = "every value sits on the bfloat16 grid: something is computed or stored in 16 bits"


def test_values_on_the_grid_of_bfloat16_are_noticed() -> None:
    assert said(GOLDEN, bf16(GOLDEN)) == [GRID]
    factor, grid = said(GOLDEN, bf16(2 * GOLDEN))
    assert factor.endswith(" times the golden (2)")
    assert grid == GRID


def test_one_value_off_the_grid_is_enough() -> None:
    answer = bf16(GOLDEN)
    answer[0, 0, 0] *= 1.001
    assert said(GOLDEN, answer) == []


def test_a_golden_on_the_grid_says_nothing_of_the_answer() -> None:
    assert said(bf16(GOLDEN), bf16(noisy(GOLDEN))) == []


def test_values_that_come_from_the_grid_say_nothing_of_the_arithmetic() -> None:
    """A product by a power of two, or a wrong row of a table, stays on the grid of what it was made of."""
    answer = bf16(2 * GOLDEN)
    for inputs, told in (({"x": bf16(GOLDEN)}, False), ({"x": GOLDEN}, True), ({"ids": np.ones(3, np.int32)}, True)):
        assert (GRID in said(GOLDEN, answer, inputs=inputs)) is told
    assert GRID not in said(GOLDEN, answer, name="model.embed_tokens")


def test_16_bits_that_are_claimed_are_no_news() -> None:
    """By the dtype of the answer, or by the profile: NumPy users widen bfloat16 to float32."""
    assert said(GOLDEN, GOLDEN.astype(np.float16)) == []
    assert said(GOLDEN, bf16(noisy(GOLDEN)), profile="bf16") == []


# Which layer


def passing(*layers: int, name: str = "output", status: Any = "pass") -> list[TapVerdict]:
    return [TapVerdict(name=f"model.layers.{i}.{name}", status=status) for i in layers]


FIRST_FULL = "layer 4 is the first full-attention layer; the sliding layers before it agree"
FIRST_SHARED = "layer 5 is the first KV-shared layer; the layers before it agree"


def said_of_layer(layer: int, before: Sequence[TapVerdict], config: TextConfig | None = CONFIG) -> list[str]:
    return said(GOLDEN, noisy(GOLDEN), name=f"model.layers.{layer}.output", config=config, before=before)


@pytest.mark.parametrize(
    ("layer", "before", "told"),
    [
        (4, passing(0, 1, 2, 3), [FIRST_FULL]),
        (4, passing(3), [FIRST_FULL]),
        (5, passing(0, 1, 2, 3, 4), [FIRST_SHARED]),
        (3, passing(0, 1, 2), []),
        (6, passing(0, 1, 2, 3, 4, 5), []),  # the second shared layer
        (9, passing(0, 1, 2, 3, 4, 5, 6, 7, 8), []),  # the second full layer
        (4, [], []),
        (4, passing(0, 1, 2, 3, name="mlp.act"), []),  # another tap
    ],
)
def test_the_first_layer_of_its_kind_is_told(layer: int, before: list[TapVerdict], told: list[str]) -> None:
    assert said_of_layer(layer, before) == told


@pytest.mark.parametrize("status", ["absent", "undecidable"])
def test_layers_that_were_not_seen_do_not_agree(status: str) -> None:
    assert said_of_layer(4, passing(0, 1, 2, 3, status=status)) == []
    assert said_of_layer(5, passing(0, 1, 2, 3, 4, status=status)) == []
    assert said_of_layer(4, passing(0, 1, 2, status=status) + passing(3)) == [FIRST_FULL]


def test_the_kind_of_layer_is_told_of_values_that_are_not_finite_too() -> None:
    nan = np.full_like(GOLDEN, np.nan)
    told = said(GOLDEN, nan, name="model.layers.4.output", config=CONFIG, before=passing(0, 1, 2, 3))
    assert told == [FIRST_FULL, f"{nan.size} values are NaN or infinite"]
