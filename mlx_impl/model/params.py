"""Modules that hold parameters, and functions that apply a parameter.

Functions of this package take a weight either as a plain array or as a module that holds one. With arrays the functions
are easy to call alone; a quantised model has modules instead.
"""

from collections.abc import Callable
from typing import Protocol

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.utils import tree_flatten

Weight = mx.array | Callable[[mx.array], mx.array]


class ExpertStack(Protocol):
    """A module that holds a stack of matrices [X, out, in]."""

    def __call__(self, index: int) -> Weight:
        """The matrix of one expert."""
        ...

    def gathered(self, x: mx.array, indices: mx.array) -> mx.array:
        """`params.gathered` with these matrices."""
        ...


Stack = mx.array | ExpertStack


class Block(Module):
    """A typed base class of modules, whose attribute names equal the tensor names of a checkpoint."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # mlx leaves this one signature bare

    def tensors(self) -> dict[str, mx.array]:
        """Every parameter by its full name, e.g. `model.layers.0.self_attn.q_proj.weight` of a `Decoder`."""
        return dict(tree_flatten(self.parameters()))  # type: ignore[no-untyped-call]  # bare in mlx


def project(x: mx.array, weight: Weight) -> mx.array:
    """x W^T: x [..., in], weight [out, in] or a module that holds it -> [..., out] in x's dtype."""
    if isinstance(weight, mx.array):
        return x @ weight.T
    return weight(x)


def expert(stack: Stack, index: int) -> Weight:
    """The matrix of one expert in a stack [X, out, in], or in a module that holds such a stack."""
    return stack[index] if isinstance(stack, mx.array) else stack(index)


def gathered(x: mx.array, stack: Stack, indices: mx.array) -> mx.array:
    """x W[indices]^T: x [..., top_k or 1, 1, in], stack [X, out, in], indices [..., top_k] -> [..., top_k, 1, out]."""
    if isinstance(stack, mx.array):
        return mx.gather_mm(x, stack.swapaxes(-1, -2), rhs_indices=indices)
    return stack.gathered(x, indices)


def lookup(ids: mx.array, table: Weight) -> mx.array:
    """Rows of a table: ids [...] integers, table [rows, width] or a module -> [..., width] in the table's dtype."""
    if isinstance(table, mx.array):
        return table[ids]
    return table(ids)


def unembed(h: mx.array, table: Embedding) -> mx.array:
    """h table^T: h [B, L, D], a module that holds [V, D] -> [B, L, V] in h's dtype."""
    logits: mx.array = table.as_linear(h)  # type: ignore[no-untyped-call]  # mlx leaves it bare
    return logits
