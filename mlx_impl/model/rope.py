"""Rotary position embedding, whole (sliding layers) and proportional (full layers)."""

import mlx.core as mx

from mlx_impl.errors import problem, shown
from mlx_impl.model.config import Config


def inverse_frequencies(head_dim: int, theta: float, rope_type: str, partial_rotary_factor: float) -> mx.array:
    """theta^(-2j/E) for j < E/2; with type "proportional", zeros from j = partial_rotary_factor * E/2 on.

    The denominator is the whole head dim E even if only a part of the pairs rotates: a pair with frequency 0 does not
    rotate. Computed in float64 and rounded once -> [E/2] float32.

    Raises MlxImplError for another type. Source: `rope_parameters`.
    """
    pairs = head_dim // 2
    if rope_type == "default":
        rotating = pairs
    elif rope_type == "proportional":
        rotating = int(partial_rotary_factor * pairs)
    else:
        raise problem("rope_type", got=shown(rope_type), expected="'default' or 'proportional'", cure="not supported")
    frequencies = [theta ** (-2.0 * j / head_dim) if j < rotating else 0.0 for j in range(pairs)]
    return mx.array(frequencies, dtype=mx.float32)


def layer_frequencies(config: Config, layer: int) -> mx.array:
    """`inverse_frequencies` of one layer -> [E/2] float32, where E is the head dim of that layer."""
    theta, rope_type, partial_rotary_factor = config.rope_of(layer)
    return inverse_frequencies(config.head_dim_of(layer), theta, rope_type, partial_rotary_factor)


def apply_rope(x: mx.array, positions: mx.array, inv_freq: mx.array) -> mx.array:
    """Rotate each pair (x[j], x[j + E/2]) by the angle position * inv_freq[j].

    x [B, H, L, E] any float dtype, positions [B, L] integers, inv_freq [E/2] float32 -> [B, H, L, E] in x's dtype.
    Angles and products are float32: bf16 cannot hold positions above 256.
    """
    angles = positions.astype(mx.float32)[:, None, :, None] * inv_freq  # [B, 1, L, E/2]
    cos, sin = mx.cos(angles), mx.sin(angles)
    first, second = mx.split(x.astype(mx.float32), 2, axis=-1)  # each [B, H, L, E/2]
    rotated = mx.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)  # [B, H, L, E]
    return rotated.astype(x.dtype)
