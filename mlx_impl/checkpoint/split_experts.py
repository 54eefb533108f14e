"""Experts as mlx-community stores them: gate, up and down separately, under `experts.switch_glu`, plain or quantised.

D hidden, F feed-forward width of an expert, X experts.
"""

from collections.abc import Iterable, Mapping

import mlx.core as mx

from mlx_impl.checkpoint.quantize import Format
from mlx_impl.errors import problem

_INNER = ".experts.switch_glu."
_FUSED = ".experts.gate_up_proj"  # [X, 2F, D], the gate in the first half
_DOWN = ".experts.down_proj"  # [X, D, F]


def is_split(names: Iterable[str]) -> bool:
    """Whether a checkpoint with tensors of these names stores its experts in this layout."""
    return any(_INNER in name for name in names)


def split_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a decoder's parameters in this layout."""
    split: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name.endswith(_FUSED):
            experts, rows, width = shape
            for part in ("gate_proj", "up_proj"):
                split[f"{_module(name.removesuffix(_FUSED), part)}.weight"] = (experts, rows // 2, width)
        elif name.endswith(_DOWN):
            split[f"{_module(name.removesuffix(_DOWN), 'down_proj')}.weight"] = shape
        else:
            split[name] = shape
    return split


def fused(arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The tensors of a complete checkpoint in this layout, by the names of the decoder's parameters.

    A plain stack becomes `experts.down_proj`; a quantised one becomes `experts.down_proj.weight`, `.scales`, `.biases`.
    """
    whole = {name: value for name, value in arrays.items() if _INNER not in name}
    for name in arrays.keys() - whole.keys():
        layer, _, inner = name.partition(_INNER)
        part, _, what = inner.partition(".")
        suffix = "" if f"{_module(layer, part)}.scales" not in arrays else f".{what}"
        if part == "down_proj":
            whole[layer + _DOWN + suffix] = arrays[name]
        elif part == "gate_proj":
            halves = [arrays[name], arrays[f"{_module(layer, 'up_proj')}.{what}"]]  # two of [X, F, D]
            whole[layer + _FUSED + suffix] = mx.concatenate(halves, axis=1)  # a row is complete, packed or not
    return whole


def fused_formats(modules: Mapping[str, Format]) -> dict[str, Format]:
    """The formats of quantised modules by the decoder's names; MlxImplError if gate and up have different formats."""
    whole = {name: form for name, form in modules.items() if _INNER not in name}
    for name in modules.keys() - whole.keys():
        layer, _, part = name.partition(_INNER)
        if part == "down_proj":
            whole[layer + _DOWN] = modules[name]
        elif part == "gate_proj":
            up = modules.get(_module(layer, "up_proj"))
            if up != modules[name]:
                raise problem(
                    name, got=f"{modules[name]}, and {up} of up_proj", expected="one format", cure="convert it again"
                )
            whole[layer + _FUSED] = modules[name]
    return whole


def _module(layer: str, part: str) -> str:
    return f"{layer}{_INNER}{part}"
