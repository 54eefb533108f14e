"""A router's choice of experts and its margin, which the cases and the judge need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gemma4_contract.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A golden's choice at every row: the experts, boolean [B, L, X], and the margins of their logits [B, L]."""

    chosen: Array
    margins: Array

    @classmethod
    def of(cls, logits: Array, combine: Array) -> Experts:
        """The choice that the weights of the experts show; both [B, L, X]."""
        return cls(chosen=combine != 0, margins=routing_margins(logits, combine))

    @classmethod
    def numbered(cls, numbers: Array, margins: Array, count: int) -> Experts:
        """The choice of the experts with these numbers [B, L, k], of `count`."""
        chosen = np.zeros((*numbers.shape[:-1], count), bool)
        np.put_along_axis(chosen, numbers.astype(np.int64), True, -1)
        return cls(chosen=chosen, margins=margins)


def routing_margins(logits: Array, combine: Array) -> Array:
    """The smallest logit of a chosen expert minus the largest of the others: both [..., X] -> [...] float64."""
    chosen = combine != 0
    wide = logits.astype(np.float64)
    lowest_in = np.where(chosen, wide, np.inf).min(-1)
    highest_out = np.where(chosen, -np.inf, wide).max(-1)
    gap: Array = lowest_in - highest_out
    return gap
