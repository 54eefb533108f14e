"""Several matrices that multiply the same input, joined: one product instead of two or three."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

Product = Callable[[mx.array], mx.array]
"""x [..., in] -> [..., out]."""


def joined(modules: Sequence[Any]) -> Product:
    """A product that gives the outputs of all modules, each [out, in], one after the other: [..., sum of outs].

    The weights of the modules become views of the joined matrix, so that nothing is held twice. Modules that are
    quantised in different ways are not joined.
    """
    if all(type(module) is Linear for module in modules):
        columns = _rows(modules, "weight").T
        mx.eval(columns)  # now, and not again at every product
        return lambda x: x @ columns
    if all(isinstance(module, QuantizedLinear) for module in modules) and len({_format(m) for m in modules}) == 1:
        first = modules[0]
        weight, scales, biases = (_rows(modules, part) for part in ("weight", "scales", "biases"))
        return lambda x: mx.quantized_matmul(
            x, weight, scales, biases, transpose=True, group_size=first.group_size, bits=first.bits
        )
    return lambda x: mx.concatenate([module(x) for module in modules], axis=-1)


def _rows(modules: Sequence[Any], part: str) -> mx.array:
    """The modules' arrays of this name, concatenated along the rows."""
    arrays: list[mx.array] = [getattr(module, part) for module in modules]
    if len(arrays) == 1:
        return arrays[0]
    rows = mx.concatenate(arrays)
    mx.eval(rows)
    first = 0
    for module, array in zip(modules, arrays, strict=True):
        setattr(module, part, rows[first : first + array.shape[0]])  # the same memory
        first += array.shape[0]
    return rows


def _format(module: Any) -> tuple[int, int]:
    return module.bits, module.group_size
