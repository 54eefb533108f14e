"""The layout of a case's tensors: rows of another case's golden, after pads or of its first tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemma4_contract.models import Picks, TapSpec
from gemma4_contract.tensors import Array


def row_axis(axes: Sequence[str]) -> int | None:
    """Which axis counts the tokens: L, or S for a tap that has only keys; None for a tap with neither."""
    return next((axes.index(letter) for letter in ("L", "S") if letter in axes), None)


def select_rows(array: Array, axes: Sequence[str], rows: slice, pads: Sequence[int]) -> Array:
    """Rows of the tokens' axis, and all keys before their end, for each row of the batch, after its pads (zeros)."""
    length = rows.stop - rows.start
    axis_l = row_axis(axes)
    assert axis_l is not None
    cut = array[(slice(None),) * axis_l + (rows,)]
    if "S" in axes[axis_l + 1 :]:
        cut = cut[(slice(None),) * axes.index("S") + (slice(0, rows.stop),)]
    if list(pads) == [0]:
        return cut
    before = (slice(None),) * axis_l
    batch = np.zeros((len(pads), *cut.shape), cut.dtype)
    for padded, pad in zip(batch, pads, strict=True):
        padded[(*before, slice(pad, length))] = cut[(*before, slice(0, length - pad))]
    return batch.reshape(-1, *cut.shape[1:])


def cut_spec(tap: TapSpec, stop: int) -> TapSpec:
    """The tap of a case of the first `stop` tokens; unchanged if all of its tensor is stored."""
    if tap.picks is None or "L" not in tap.axes:
        return tap
    axis = tap.axes.index("L")
    rows = _stored_rows(tap.picks, stop)
    picks = tap.picks.model_copy(
        update={
            "whole": [*tap.picks.whole[:axis], stop, *tap.picks.whole[axis + 1 :]],
            "taken": tap.picks.taken | {"L": rows},
            "rms": tap.picks.rms if stop == tap.picks.whole[axis] else None,
        }
    )
    shape = [*tap.shape[:axis], len(rows), *tap.shape[axis + 1 :]]
    return tap.model_copy(update={"picks": picks, "shape": shape})


def cut_stored(stored: Array, tap: TapSpec, stop: int) -> Array:
    """The stored rows of the first `stop` tokens."""
    if tap.picks is None or "L" not in tap.axes:
        return stored
    rows = _stored_rows(tap.picks, stop)
    return stored[(slice(None),) * tap.axes.index("L") + (slice(0, len(rows)),)]


def _stored_rows(picks: Picks, stop: int) -> list[int]:
    rows = picks.taken["L"]
    return [row for row in (rows if isinstance(rows, list) else rows.indices) if row < stop]
