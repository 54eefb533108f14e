"""What holds parameters, and the two ways of applying them.

Functions of this package take a weight either as a plain array or as a module that holds one. Arrays make the
functions easy to call alone; modules are what a quantised model has in their place.
"""

from collections.abc import Callable

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.utils import tree_flatten

Weight = mx.array | Callable[[mx.array], mx.array]


class Block(Module):
    """A typed base for modules: attribute names equal the checkpoint's tensor names."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # mlx leaves this one signature bare

    def tensors(self) -> dict[str, mx.array]:
        """Every parameter under its full name, e.g. `model.layers.0.self_attn.q_proj.weight` of a `Decoder`."""
        return dict(tree_flatten(self.parameters()))  # type: ignore[no-untyped-call]  # bare in mlx


def project(x: mx.array, weight: Weight) -> mx.array:
    """x W^T: x [..., in], weight [out, in] or a module that holds it -> [..., out] in x's dtype."""
    if isinstance(weight, mx.array):
        return x @ weight.T
    return weight(x)


def lookup(ids: mx.array, table: Weight) -> mx.array:
    """Rows of a table: ids [...] integers, table [rows, width] or a module -> [..., width] in the table's dtype."""
    if isinstance(table, mx.array):
        return table[ids]
    return table(ids)


def unembed(h: mx.array, table: Embedding) -> mx.array:
    """h table^T: h [B, L, D], a module that holds [V, D] -> [B, L, V] in h's dtype."""
    logits: mx.array = table.as_linear(h)  # type: ignore[no-untyped-call]  # mlx leaves it bare
    return logits
