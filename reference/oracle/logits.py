"""From the last hidden state to capped logits."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Arithmetic, Array


def softcap(x: Array, cap: float, ar: Arithmetic) -> Array:
    """cap * tanh(x / cap)."""
    return np.tanh(x / ar.scalar(cap, x)) * ar.scalar(cap, x)
