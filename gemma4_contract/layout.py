"""How the tensors of a case are laid out: rows of another case's golden, behind pads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gemma4_contract.tensors import Array


def select_rows(array: Array, axes: Sequence[str], rows: slice, pads: Sequence[int]) -> Array:
    """Rows of the L axis (and as many of S), once per row of the batch, each behind its pads (zeros)."""
    length = rows.stop - rows.start
    axis_l = axes.index("L")
    cut = array[(slice(None),) * axis_l + (rows,)]
    if "S" in axes:
        cut = cut[(slice(None),) * axes.index("S") + (slice(0, rows.stop),)]
    if list(pads) == [0]:
        return cut
    batch = []
    for pad in pads:
        kept = cut[(slice(None),) * axis_l + (slice(0, length - pad),)]
        widths = [(0, 0)] * cut.ndim
        widths[axis_l] = (pad, 0)
        batch.append(np.pad(kept, widths))
    return np.concatenate(batch)
