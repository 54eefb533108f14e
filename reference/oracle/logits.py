"""From the last hidden state to capped logits."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Array, Functions


class Logits(Functions):
    """The soft cap."""

    def softcap(self, x: Array, cap: float) -> Array:
        """cap * tanh(x / cap)."""
        ar = self.ar
        c = ar.chain(x)
        return (np.tanh(c / ar.scalar(cap, c)) * ar.scalar(cap, c)).astype(x.dtype)
