"""Several matrices of one input as one: a single product in the place of two or three."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

from mlx_impl.params import Weight


def joined(modules: Sequence[Any]) -> Weight:
    """A module whose output [..., sum of outs] is that of all modules [outs, in], one behind the other.

    The modules keep their weights, as parts of the whole: nothing is held twice. Modules that are quantised in
    different ways stay apart.
    """
    first = modules[0]
    if len(modules) == 1:
        whole: Weight = first
        return whole
    if all(type(module) is Linear for module in modules):
        plain = Linear(1, 1, bias=False)
        _join(plain, modules, ("weight",))  # [sum of outs, in]
        return plain
    if all(isinstance(module, QuantizedLinear) for module in modules) and len({_format(m) for m in modules}) == 1:
        packed = QuantizedLinear(32, 32, bias=False, group_size=32, bits=4)
        packed.group_size, packed.bits = first.group_size, first.bits
        _join(packed, modules, ("weight", "scales", "biases"))
        return packed
    return lambda x: mx.concatenate([module(x) for module in modules], axis=-1)


def _join(whole: Any, modules: Sequence[Any], parts: Sequence[str]) -> None:
    for part in parts:
        rows = mx.concatenate([getattr(module, part) for module in modules])
        mx.eval(rows)
        setattr(whole, part, rows)
        first = 0
        for module in modules:
            count = getattr(module, part).shape[0]
            setattr(module, part, rows[first : first + count])  # the same memory
            first += count


def _format(module: Any) -> tuple[int, int]:
    return module.bits, module.group_size
