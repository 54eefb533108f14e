"""A model of full size whose weights MLX makes by the rule of docs/FIXTURES.md, where it will run.

Random weights of another kind explode with depth or echo their input; these behave, and everybody has the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import mlx.core as mx
import numpy as np

from reference import weights
from reference.config import TextConfig

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BLOCK = 1 << 24
"""Elements at a time: their hashes take eight bytes each."""


def tensors(model_id: str, config: TextConfig) -> Iterator[tuple[str, mx.array]]:
    """Every parameter, by its name in the state dict, in bfloat16, which holds them all exactly."""
    for name, shape in weights.tensor_shapes(config).items():
        if len(shape) < 2:
            made = weights.tensor(model_id, name, shape, config, mini=False)
            yield name, mx.array(made.astype(np.float32)).astype(mx.bfloat16)
        else:
            per_layer = name == "model.embed_tokens_per_layer.weight"
            yield (
                name,
                matrix(f"{model_id}/{name}", shape, config.hidden_size_per_layer_input if per_layer else shape[-1]),
            )


def matrix(name: str, shape: tuple[int, ...], fan_in: int) -> mx.array:
    """`reference.weights.matrix` in bfloat16: q * 2^-k."""
    row, scale = math.prod(shape[1:]), 2.0 ** -weights.matrix_exponent(fan_in)
    rows = max(1, _BLOCK // row)  # whole rows: an axis of MLX holds no more than 2^31 - 1
    blocks = []
    for first in range(0, shape[0], rows):
        count = min(rows, shape[0] - first)
        block = _q(name, first * row, count * row).astype(mx.bfloat16).reshape(count, *shape[1:]) * scale
        mx.eval(block)  # or all hashes would be held at once
        blocks.append(block)
    return mx.concatenate(blocks)


def _q(name: str, first: int, count: int) -> mx.array:
    """`reference.weights.q`: the signed top byte of splitmix64(fnv1a64(name) + i)."""
    z = mx.arange(count, dtype=mx.uint64) + _word(weights.fnv1a64(name) + first + _GAMMA)
    z = (z ^ (z >> _word(30))) * _word(_MIX_1)
    z = (z ^ (z >> _word(27))) * _word(_MIX_2)
    z = z ^ (z >> _word(31))
    return (z >> _word(56)).astype(mx.uint8).view(mx.int8)


def _word(value: int) -> mx.array:
    return mx.array(np.array(value & (2**64 - 1), np.uint64))
