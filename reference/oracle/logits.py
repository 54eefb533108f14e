"""From the last hidden state to capped logits."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Arithmetic, Array


def softcap(x: Array, cap: float, ar: Arithmetic) -> Array:
    """cap * tanh(x / cap)."""
    c = ar.chain(x)
    return (np.tanh(c / ar.scalar(cap, c)) * ar.scalar(cap, c)).astype(x.dtype)
