"""The gated MLP: down(gelu_tanh(gate x) * up x)."""

from __future__ import annotations

import math

import numpy as np

from reference.oracle.arithmetic import Array, Functions


class MLP(Functions):
    """GELU, and the gate that it makes."""

    def gelu_tanh(self, x: Array) -> Array:
        """GELU in its tanh form: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
        ar = self.ar
        c = ar.chain(x)
        inner = ar.scalar(math.sqrt(2.0 / math.pi), c) * (c + ar.scalar(0.044715, c) * c * c * c)
        return (ar.scalar(0.5, c) * c * (ar.scalar(1.0, c) + np.tanh(inner))).astype(x.dtype)

    def activation(self, x: Array, gate: Array, up: Array) -> Array:
        """gelu_tanh(gate x) * up x: x [..., D], gate and up [F, D] -> [..., F]."""
        return self.gelu_tanh(self.ar.linear(x, gate)) * self.ar.linear(x, up)
