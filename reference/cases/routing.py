"""Inputs of mixture-of-experts cases, chosen so that rounding cannot change which experts are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from gemma4_contract.tensors import Array

ROUTING_MARGIN = 0.45
"""Smallest gap of router logits that a teacher-forced case may have: over 8 times bfloat16's floor there."""


def wide_rows(pool: Iterable[Array], length: int, margin_of_last: Callable[[Array], float]) -> Array:
    """`length` rows [1, L, D] of a pool of rows [D], each taken if the choice it leads to has a wide margin.

    `margin_of_last` gives the margin of the last of some rows [1, l, D], which depends on the rows before it.
    ValueError if the pool is used up.
    """
    taken: list[Array] = []
    for row in pool:
        rows = np.stack([*taken, row])[None]
        if margin_of_last(rows) > ROUTING_MARGIN:
            taken.append(row)
        if len(taken) == length:
            return rows
    raise ValueError(
        f"only {len(taken)} of {length} rows have a routing margin over {ROUTING_MARGIN}: enlarge the pool"
    )
