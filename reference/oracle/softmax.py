"""Softmax, in the wide dtype: of attention's scores and of the router's logits."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Array, Functions


class Softmax(Functions):
    """Softmax."""

    def softmax(self, scores: Array, mask: Array | None = None) -> Array:
        """Softmax over the last axis in the wide dtype; masked entries are 0, as is a row with all masked."""
        ar = self.ar
        wide = scores.astype(ar.wide)
        seen = np.ones(wide.shape, bool) if mask is None else np.broadcast_to(mask, wide.shape)
        lowest = np.asarray(-np.inf, wide.dtype)
        peak = np.where(seen, wide, lowest).max(-1, keepdims=True)
        peak = np.where(np.isfinite(peak.astype(np.float64)), peak, ar.scalar(0.0, wide))
        weights = np.where(seen, np.exp(np.where(seen, wide - peak, ar.scalar(0.0, wide))), ar.scalar(0.0, wide))
        total = ar.sum(weights)
        return weights / np.where(total == 0, ar.scalar(1.0, wide), total)
