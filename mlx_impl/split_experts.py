"""Experts as mlx-community stores them: gate, up and down apart, under `experts.switch_glu`.

D hidden, F feed-forward width of an expert, X experts.
"""

from collections.abc import Iterable, Mapping

import mlx.core as mx

_INNER = ".experts.switch_glu."
_FUSED = ".experts.gate_up_proj"  # [X, 2F, D], the gate in the first half
_DOWN = ".experts.down_proj"  # [X, D, F]


def is_split(names: Iterable[str]) -> bool:
    """Whether a checkpoint with tensors of these names stores its experts so."""
    return any(_INNER in name for name in names)


def split_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a decoder's parameters as such a checkpoint has them."""
    split: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name.endswith(_FUSED):
            experts, rows, width = shape
            for part in ("gate_proj", "up_proj"):
                split[_part(name.removesuffix(_FUSED), part)] = (experts, rows // 2, width)
        elif name.endswith(_DOWN):
            split[_part(name.removesuffix(_DOWN), "down_proj")] = shape
        else:
            split[name] = shape
    return split


def fused(arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The tensors of such a checkpoint, all of them there, by the names of the decoder's parameters."""
    whole = {name: value for name, value in arrays.items() if _INNER not in name}
    for layer in {name.partition(_INNER)[0] for name in arrays.keys() - whole.keys()}:
        halves = [arrays[_part(layer, part)] for part in ("gate_proj", "up_proj")]  # two of [X, F, D]
        whole[layer + _FUSED] = mx.concatenate(halves, axis=1)
        whole[layer + _DOWN] = arrays[_part(layer, "down_proj")]
    return whole


def _part(layer: str, part: str) -> str:
    return f"{layer}{_INNER}{part}.weight"
