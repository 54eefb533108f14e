"""Mixture of experts: the router and the weighted sum over the experts it chose."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Array
from reference.oracle.mlp import MLP
from reference.oracle.norm import Norm
from reference.oracle.softmax import Softmax


class MoE(Norm, Softmax, MLP):
    """Router and experts."""

    def router_logits(self, h: Array, scale: Array, proj: Array, eps: float) -> Array:
        """(rms_norm(h) * scale / sqrt(D)) W^T: h [B, L, D] is the raw residual, proj [X, D] -> [B, L, X]."""
        x = self.rms_norm(h, None, eps) * scale * self.ar.scalar(h.shape[-1] ** -0.5, h)
        return self.ar.linear(x, proj)

    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        """Softmax over all experts, the top k renormalised to sum 1, times the expert's scale; 0 elsewhere.

        Logits [B, L, X], per_expert_scale [X] -> [B, L, X].
        """
        probs = self.softmax(logits)  # in the wide dtype
        chosen = np.argsort(-probs.astype(np.float64), axis=-1, kind="stable")[..., :top_k]  # ties: the lower index
        kept = np.zeros_like(probs)
        np.put_along_axis(kept, chosen, np.take_along_axis(probs, chosen, -1), -1)
        return (kept / self.ar.sum(kept)).astype(logits.dtype) * per_expert_scale

    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        """sum_e combine_e * down_e(gelu_tanh(gate_e x) * up_e x): x [B, L, D], gate_up [X, 2F, D], down [X, D, F].

        The fused matrix holds the gate in its first F rows and up in the other F.
        """
        total = np.zeros_like(x)
        for expert in range(gate_up.shape[0]):
            chosen = combine[..., expert] != 0  # [B, L]
            if chosen.any():
                gate, up = np.split(gate_up[expert], 2)
                y = self.ar.linear(self.activation(x[chosen], gate, up), down[expert])
                total[chosen] += y * combine[chosen][:, expert, None]
        return total
