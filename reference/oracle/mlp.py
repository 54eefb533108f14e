"""The gated MLP: down(gelu_tanh(gate x) * up x)."""

from __future__ import annotations

import math

import numpy as np

from reference.oracle.arithmetic import Arithmetic, Array


def gelu_tanh(x: Array, ar: Arithmetic) -> Array:
    """GELU in its tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
    c = ar.chain(x)
    inner = ar.scalar(math.sqrt(2.0 / math.pi), c) * (c + ar.scalar(0.044715, c) * c * c * c)
    return (ar.scalar(0.5, c) * c * (ar.scalar(1.0, c) + np.tanh(inner))).astype(x.dtype)


def activation(x: Array, gate: Array, up: Array, ar: Arithmetic) -> Array:
    """gelu_tanh(gate x) * up x: x [..., D], gate and up [F, D] -> [..., F]."""
    return gelu_tanh(ar.linear(x, gate), ar) * ar.linear(x, up)
