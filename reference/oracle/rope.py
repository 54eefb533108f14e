"""RoPE, default and proportional.

Proportional RoPE divides by the whole head dim and pairs channel j with j + E/2; only the first
partial_rotary_factor * E/2 pairs rotate, the others have frequency zero.
"""

from __future__ import annotations

import numpy as np

from reference.config import Rope
from reference.oracle.arithmetic import Array, Functions


class RoPE(Functions):
    """Frequencies, and the rotation by them."""

    def inverse_frequencies(self, head_dim: int, rope: Rope) -> Array:
        """theta^(-2j/E) for j < rotating pairs, then zeros: E/2 values in float64, or float32 in lower arithmetics."""
        ar = self.ar
        dtype = np.float64 if ar.dtype == np.float64 else np.float32
        pairs = head_dim // 2
        rotating = int(rope.partial_rotary_factor * head_dim // 2) if rope.rope_type == "proportional" else pairs
        exponent: Array = np.arange(0, 2 * rotating, 2).astype(dtype) / np.asarray(head_dim, dtype)
        theta = dtype(rope.rope_theta)
        if ar.fused:
            frequencies = np.exp(-exponent * np.log(theta))
        elif ar.reciprocal:
            frequencies = np.power(theta, -exponent)
        else:
            frequencies = dtype(1.0) / np.power(theta, exponent)
        return np.concatenate([frequencies, np.zeros(pairs - rotating, dtype)])

    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        """Rotate pairs (j, j + E/2) of x [B, H, L, E] by positions [B, L] * frequencies [E/2]."""
        # Angles reach 131071 rad: they are never computed in a 16-bit dtype.
        angles = positions[:, None, :, None].astype(frequencies.dtype) * frequencies  # [B, 1, L, E/2]
        cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
