"""Taps: named tensors shown to an observer on their way through the forward pass.

A call site reads `if tap is not None: tap("self_attn.q_norm", q)`, so that nothing is computed when nobody looks.
"""

from collections.abc import Callable

import mlx.core as mx

Tap = Callable[[str, mx.array], None]


def scope(tap: Tap | None, prefix: str) -> Tap | None:
    """A tap that puts `prefix` before every name; None stays None."""
    if tap is None:
        return None
    outer = tap
    return lambda name, value: outer(prefix + name, value)
