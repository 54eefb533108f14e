"""RMSNorm: y = x / sqrt(mean(x^2) + eps) * w. The weight is w, not 1 + w."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Array, Functions


class Norm(Functions):
    """RMSNorm."""

    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        """Normalise the last axis of x [..., D]; `weight` [D] may be absent (v_norm, router)."""
        ar = self.ar
        wide = x.astype(ar.wide)
        mean_square = ar.sum(wide * wide) / ar.scalar(x.shape[-1], wide)  # [..., 1]
        root = np.sqrt(mean_square + ar.scalar(eps, wide))
        y = wide * (ar.scalar(1.0, wide) / root) if ar.reciprocal else wide / root
        if weight is not None:
            y = y * weight.astype(ar.wide)
        return y.astype(x.dtype)
