"""Rows and masks are laid out along the axes of a tap."""

import numpy as np

from gemma4_contract.layout import row_axis, select_rows
from gemma4_contract.selection import spread_mask


def test_rows_are_cut_along_l_and_s() -> None:
    probs = np.arange(2 * 4 * 4).reshape(1, 2, 4, 4)
    assert np.array_equal(select_rows(probs, ["B", "H", "L", "S"], slice(1, 3), [0]), probs[:, :, 1:3, :3])
    hidden = np.arange(8).reshape(1, 4, 2)
    assert np.array_equal(select_rows(hidden, ["B", "L", "D"], slice(0, 3), [0]), hidden[:, :3])


def test_rows_of_a_batch_stand_behind_their_pads() -> None:
    keys = 1 + np.arange(2 * 3 * 2).reshape(1, 2, 3, 2)  # B K L E
    got = select_rows(keys, ["B", "K", "L", "E"], slice(0, 3), [0, 2])
    assert got.shape == (2, 2, 3, 2)
    assert np.array_equal(got[0], keys[0])
    assert not got[1, :, :2].any()
    assert np.array_equal(got[1, :, 2], keys[0, :, 0])
    one = select_rows(keys, ["B", "K", "L", "E"], slice(0, 3), [1])  # a padded batch of one row
    assert np.array_equal(one[0, :, 1:], keys[0, :, :2])


def test_masks_spread_over_the_axes_b_and_l() -> None:
    mask = np.array([[1, 1, 1], [0, 0, 1]], np.uint8)
    spread = spread_mask(mask, ["B", "H", "L", "E"], (2, 4, 3, 5))
    assert spread is not None
    assert (spread.shape, spread.dtype) == ((2, 4, 3, 5), np.dtype(bool))
    for index in np.ndindex(2, 4, 3, 5):
        assert spread[index] == bool(mask[index[0], index[2]])
    assert spread_mask(mask, ["N"], (2,)) is None
    assert spread_mask(None, ["B", "L"], (2, 3)) is None


def test_the_axis_of_the_tokens_is_l_or_that_of_keys_alone() -> None:
    assert row_axis(["B", "H", "L", "S"]) == 2
    assert row_axis(["B", "K", "S", "E"]) == 2
    assert row_axis(["X"]) is None
    keys = np.arange(24.0).reshape(1, 2, 6, 2)
    assert np.array_equal(select_rows(keys, ["B", "K", "S", "E"], slice(0, 4), [0]), keys[:, :, :4])
