"""The arithmetic that the oracle computes in: float64 for goldens, lower ones to measure what rounding costs.

The dtype of the arrays is the arithmetic: elementwise operations round to it one by one. Products accumulate in
`accumulate` and are rounded once; the islands that honest implementations compute wide (norms, softmax) are cast to
`wide` where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

ORDERS = ("blas", "sequential", "reversed", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A storage dtype, the dtype of the islands, and the order in which products are summed.

    `order`: "blas" as the library sums, "sequential" term by term as a plain loop does, "reversed" the same from the
    other end, "split" even and odd terms apart.
    """

    name: str
    dtype: np.dtype[Any]
    wide: np.dtype[Any]
    accumulate: np.dtype[Any]
    order: str = "blas"

    def cast(self, x: npt.ArrayLike) -> Array:
        """x in the storage dtype."""
        return np.asarray(x).astype(self.dtype)

    def scalar(self, value: float, like: Array) -> Any:
        """A constant in the dtype of `like`, so that it does not promote."""
        return like.dtype.type(value)

    def matmul(self, a: Array, b: Array) -> Array:
        """a @ b, accumulated in `accumulate`, rounded once to a's dtype: [..., M, I] @ [..., I, O] -> [..., M, O]."""
        a_wide, b_wide = a.astype(self.accumulate), b.astype(self.accumulate)
        if self.order == "split":
            even = np.matmul(a_wide[..., ::2], b_wide[..., ::2, :])
            return (even + np.matmul(a_wide[..., 1::2], b_wide[..., 1::2, :])).astype(a.dtype)
        if self.order == "blas":
            return np.matmul(a_wide, b_wide).astype(a.dtype)
        total: Array = np.zeros((), self.accumulate)
        for i in self._terms(a.shape[-1]):
            total = total + a_wide[..., i, None] * b_wide[..., i, None, :]
        return total.astype(a.dtype)

    def linear(self, x: Array, weight: Array) -> Array:
        """x W^T: [..., I], [O, I] -> [..., O]."""
        flat = x.reshape(-1, x.shape[-1])  # one product of two matrices, whatever the leading axes
        return self.matmul(flat, weight.T).reshape(*x.shape[:-1], weight.shape[0])

    def sum(self, x: Array, axis: int = -1) -> Array:
        """Sum over an axis, kept as length 1, accumulated in `accumulate`."""
        terms = np.moveaxis(x.astype(self.accumulate), axis, -1)
        if self.order == "blas":
            total = terms.sum(-1, keepdims=True)
        elif self.order == "split":
            total = terms[..., ::2].sum(-1, keepdims=True) + terms[..., 1::2].sum(-1, keepdims=True)
        else:  # cumsum adds term by term
            total = np.cumsum(terms[..., list(self._terms(terms.shape[-1]))], axis=-1)[..., -1:]
        return np.moveaxis(total, -1, axis).astype(x.dtype)

    def _terms(self, count: int) -> range:
        return range(count - 1, -1, -1) if self.order == "reversed" else range(count)


_F64, _F32, _F16 = np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16)

F64 = Arithmetic(name="f64", dtype=_F64, wide=_F64, accumulate=_F64)
F32 = Arithmetic(name="f32", dtype=_F32, wide=_F32, accumulate=_F32)
BF16 = Arithmetic(name="bf16", dtype=BFLOAT16, wide=_F32, accumulate=_F32)
F16 = Arithmetic(name="f16", dtype=_F16, wide=_F32, accumulate=_F32)
BF16_EVERY_OP = Arithmetic(name="bf16 every op", dtype=BFLOAT16, wide=BFLOAT16, accumulate=_F32)
"""Rounds after every operation, the islands included: the worst that an honest implementation does."""

PROFILES = {arithmetic.name: arithmetic for arithmetic in (F64, F32, BF16, F16)}
