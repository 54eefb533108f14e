"""Per-layer embeddings (PLE): every layer's own view of the token, and its gate."""

from __future__ import annotations

import math

from reference.oracle.arithmetic import Array
from reference.oracle.mlp import MLP
from reference.oracle.norm import Norm
from reference.taps import Recorder


class PLE(Norm, MLP):
    """The per-layer embeddings of all layers, and the gate of one."""

    def ple_index(self, token: int, layer: int, channel: int, num_layers: int, width: int) -> int:
        """(token * N + layer) * P + channel: a channel's offset in the packed table, which passes 2^31 in E2B."""
        return (token * num_layers + layer) * width + channel

    def token_rows(self, ids: Array, table: Array, num_layers: int) -> Array:
        """The packed rows of `table` [V, N*P], scaled by sqrt(P): [B, L, N, P]."""
        width = table.shape[-1] // num_layers
        rows = table[ids] * self.ar.scalar(math.sqrt(width), table)
        return rows.reshape(*ids.shape, num_layers, width)

    def context_projection(self, h: Array, projection: Array, weight: Array, eps: float, num_layers: int) -> Array:
        """rms_norm(h W^T / sqrt(D)) per layer: h [B, L, D], projection [N*P, D] -> [B, L, N, P]."""
        projected = self.ar.linear(h, projection)
        projected = projected * self.ar.scalar(h.shape[-1] ** -0.5, projected)
        projected = projected.reshape(*h.shape[:2], num_layers, -1)
        return self.rms_norm(projected, weight, eps)

    def combine_rows(self, context: Array, rows: Array) -> Array:
        """(context + rows) / sqrt(2): two [B, L, N, P] -> [B, L, N, P]."""
        return (context + rows) * self.ar.scalar(2.0**-0.5, rows)

    def per_layer_inputs(
        self,
        ids: Array,
        h: Array,
        table: Array,
        projection: Array,
        weight: Array,
        *,
        eps: float,
        num_layers: int,
        record: Recorder,
    ) -> Array:
        """The context projection and the token rows combined: [B, L, N, P]; h is the scaled embedding."""
        rows = self.token_rows(ids, table, num_layers)
        rows = record("model.embed_tokens_per_layer", rows)
        context = self.context_projection(h, projection, weight, eps, num_layers)
        context = record("model.per_layer_projection_norm", context)
        return record("model.ple", self.combine_rows(context, rows))

    def per_layer_gate(self, h: Array, layer_input: Array, weight: Array) -> Array:
        """gelu_tanh(h W^T) * this layer's slice of the PLE: h [B, L, D], weight [P, D] -> [B, L, P]."""
        return self.gelu_tanh(self.ar.linear(h, weight)) * layer_input
