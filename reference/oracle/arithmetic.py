"""The arithmetic that the oracle computes in: float64 for goldens, lower ones to measure what rounding costs.

The dtype of the arrays is the arithmetic: elementwise operations round to it one by one. Products accumulate in
`accumulate` and are rounded once; the parts that honest implementations compute wide (norms, softmax) are cast to
`wide` in their functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma4_contract.profiles import installed_profiles
from gemma4_contract.tensors import DTYPES
from gemma4_contract.tensors import Array as Array
from reference.oracle import summation


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """A storage dtype, the dtype of the wide parts, and the order in which products are summed.

    `order` is one of `summation.ORDERS` and `OTHER_ORDERS`. `fused` computes as fused kernels do: chains of
    elementwise operations (GELU, soft cap) round once at their end, and theta^-x is exp(-x log theta). `reciprocal`
    multiplies by 1/root in norms, and takes theta^-x instead of 1/theta^x.
    """

    name: str
    dtype: np.dtype[Any]
    wide: np.dtype[Any]
    accumulate: np.dtype[Any]
    order: str = "blas"
    fused: bool = False
    reciprocal: bool = False

    def cast(self, x: npt.ArrayLike) -> Array:
        """x in the storage dtype; x itself if it is in it, which nobody may write into."""
        return np.asarray(x).astype(self.dtype, copy=False)

    def chain(self, x: Array) -> Array:
        """x as the start of a chain of elementwise operations: unchanged, or wide if `fused`."""
        return x.astype(self.wide) if self.fused else x

    def scalar(self, value: float, like: Array) -> Any:
        """A constant in the dtype of `like`, so that it does not promote."""
        return like.dtype.type(value)

    def matmul(self, a: Array, b: Array) -> Array:
        """a @ b, accumulated in `accumulate`, rounded once to a's dtype: [..., M, I] @ [..., I, O] -> [..., M, O]."""
        a_wide, b_wide = a.astype(self.accumulate), b.astype(self.accumulate)
        parts = summation.parts_of(self.order, a.shape[-1])
        sums = (_product(a_wide[..., part], b_wide[..., part, :]) for part in parts)  # each made when it is added
        return summation.total_of(self.order, sums).astype(a.dtype)

    def linear(self, x: Array, weight: Array) -> Array:
        """x W^T: [..., I], [O, I] -> [..., O]."""
        flat = x.reshape(-1, x.shape[-1])  # one product of two matrices, whatever the leading axes
        return self.matmul(flat, weight.T).reshape(*x.shape[:-1], weight.shape[0])

    def sum(self, x: Array, axis: int = -1) -> Array:
        """Sum over an axis, kept as length 1, accumulated in `accumulate`."""
        terms = x.astype(self.accumulate).swapaxes(axis, -1)
        parts = summation.parts_of(self.order, terms.shape[-1])
        total = summation.total_of(self.order, (terms[..., part].sum(-1, keepdims=True) for part in parts))
        return total.swapaxes(axis, -1).astype(x.dtype)


def _product(a: Array, b: Array) -> Array:
    """a @ b; for a single term the elementwise product, which is twice as fast."""
    return a * b if a.shape[-1] == 1 else np.matmul(a, b)


class Functions:
    """Functions that compute in one arithmetic; each file of the oracle adds those of its module."""

    def __init__(self, ar: Arithmetic) -> None:
        self.ar = ar


def of_profile(name: str) -> Arithmetic:
    """The arithmetic that a profile states (`fixtures/profiles/<name>.json`)."""
    profile = installed_profiles()[name]
    return Arithmetic(
        name=name,
        dtype=DTYPES[profile.storage],
        wide=DTYPES[profile.islands],
        accumulate=DTYPES[profile.accumulation],
    )


F64 = of_profile("f64")
F32 = of_profile("f32")
BF16 = of_profile("bf16")
F16 = of_profile("f16")
BF16_EVERY_OP = replace(BF16, name="bf16 every op", wide=BF16.dtype)
"""Rounds after every operation, also in the wide parts: the worst that an honest implementation does."""

PROFILES = {arithmetic.name: arithmetic for arithmetic in (F64, F32, BF16, F16)}
