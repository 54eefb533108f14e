"""Taps: named tensors shown to an observer on their way through the forward pass.

A call site reads `q = tap("self_attn.q_norm", q)`, on a line of its own. A pass that nobody observes has the tap
`unwatched`, which does nothing.
"""

from collections.abc import Callable

import mlx.core as mx

Tap = Callable[[str, mx.array], mx.array]
"""Called with the name of a tensor and the tensor; the pass goes on with what it returns."""


def unwatched(_name: str, value: mx.array) -> mx.array:
    """The tap of a pass that nobody observes: it does nothing."""
    return value


def scope(tap: Tap, prefix: str) -> Tap:
    """A tap that puts `prefix` before every name; `unwatched` stays `unwatched`."""
    if tap is unwatched:
        return unwatched
    return lambda name, value: tap(prefix + name, value)
