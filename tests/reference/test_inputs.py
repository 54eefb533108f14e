"""Inputs by rule: reproducible from names alone, with the exactness and the ranges that they promise."""

import numpy as np

from reference import inputs
from reference.export import scalar_rule


def test_values_are_scaled_powers_of_two() -> None:
    for scale, exponent in {1.0: 6, 2.0: 5, 1e-3: 16, 1e3: -4, 512**-0.5: 11}.items():  # round(log2(73.9 / scale))
        got = inputs.values("case#x", (2, 9), scale)
        expected = [[scalar_rule.q("case#x", 9 * i + j) * 2.0**-exponent for j in range(9)] for i in range(2)]
        assert got.tolist() == expected, scale


def test_full_precision_uses_all_bits_of_a_float32() -> None:
    got = inputs.full_precision("case#x", (4, 64))
    assert got.reshape(-1)[:5].tolist() == [(scalar_rule.word("case#x", i) >> 40) / 2**23 - 1 for i in range(5)]
    assert np.array_equal(got, got.astype(np.float32))
    # TF32 keeps 10 bits of the fraction; nearly no value survives.
    scaled = np.ldexp(np.frexp(got)[0], 11)
    assert (scaled != np.rint(scaled)).mean() > 0.9


def test_token_ids_are_no_pads_and_end_in_the_last_of_the_vocabulary() -> None:
    ids = inputs.token_ids("case#ids", 300, 128)
    assert ids.shape == (1, 300)
    assert ids.dtype == np.int32
    assert ids[0, :299].tolist() == [(scalar_rule.word("case#ids", i) >> 32) % 127 + 1 for i in range(299)]
    assert ids[0, -1] == 127
    assert set(ids[0].tolist()) <= set(range(1, 128))
    assert inputs.token_ids("case#ids", 2, 128)[0].tolist() == ids[0, :2].tolist()  # too short for the last id


def test_grid_ascends_through_bf16_values_without_repeats() -> None:
    got = inputs.grid(-4.5, 4.5, 400)
    assert (np.diff(got) > 0).all()
    assert (got[0], got[-1]) == (-4.5, 4.5)
    assert not (got.astype(np.float32).view(np.uint32) & 0xFFFF).any()
