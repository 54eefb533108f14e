"""The margin of a router's choice, for cases that must have a wide one and for the judge."""

from __future__ import annotations

import numpy as np

from gemma4_contract.tensors import Array


def routing_margins(logits: Array, combine: Array) -> Array:
    """The gap between the last chosen router logit and the first that is not: both [..., X] -> [...] float64."""
    chosen = combine != 0
    wide = logits.astype(np.float64)
    lowest_in = np.where(chosen, wide, np.inf).min(-1)
    highest_out = np.where(chosen, -np.inf, wide).max(-1)
    gap: Array = lowest_in - highest_out
    return gap
