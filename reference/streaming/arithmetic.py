"""The oracle's arithmetic, with matrices that are multiplied in blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma4_contract.tensors import Array
from reference.oracle.arithmetic import Arithmetic
from reference.streaming.matrix import Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed(Arithmetic):
    """An `Arithmetic` whose weights may be a `Matrix` instead of an array."""

    def cast(self, x: Any) -> Any:
        """x in the storage dtype; a `Matrix` already has it."""
        return x if isinstance(x, Matrix) else Arithmetic.cast(self, x)

    def linear(self, x: Array, weight: Any) -> Array:
        """x W^T: [..., I], [O, I] -> [..., O], never more than a block of W at a time."""
        if not isinstance(weight, Matrix):
            return Arithmetic.linear(self, x, weight)
        flat = x.reshape(-1, x.shape[-1])
        out = np.empty((flat.shape[0], weight.shape[0]), x.dtype)
        for block in weight.blocks():
            out[:, block] = self._times(flat, weight.rows(block).T)
        return out.reshape(*x.shape[:-1], weight.shape[0])

    def _times(self, x: Array, columns: Array) -> Array:
        """x [L, I], columns [I, O] -> [L, O]."""
        if self.order != "sequential":
            return self.matmul(x, columns)
        x_wide, wide = x.astype(self.accumulate), np.ascontiguousarray(columns, self.accumulate)
        product: Array = np.einsum("li,io->lo", x_wide, wide)  # term by term, without an array for each of them
        return product.astype(x.dtype)


def streamed(arithmetic: Arithmetic) -> Streamed:
    """The same arithmetic for streaming."""
    return Streamed(**{name: getattr(arithmetic, name) for name in Arithmetic.__dataclass_fields__})
