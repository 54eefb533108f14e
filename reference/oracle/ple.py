"""Per-layer embeddings (PLE): every layer's own view of the token, and the gate that lets it in."""

from __future__ import annotations

import math

from reference.oracle import mlp, norm
from reference.oracle.arithmetic import Arithmetic, Array
from reference.taps import Recorder


def token_rows(ids: Array, table: Array, num_layers: int, ar: Arithmetic) -> Array:
    """The packed rows of `table` [V, N*P], scaled by sqrt(P): [B, L, N, P]."""
    width = table.shape[-1] // num_layers
    rows = table[ids] * ar.scalar(math.sqrt(width), table)
    return rows.reshape(*ids.shape, num_layers, width)


def context_projection(
    h: Array, projection: Array, weight: Array, eps: float, num_layers: int, ar: Arithmetic
) -> Array:
    """rms_norm(h W^T / sqrt(D)) per layer: h [B, L, D], projection [N*P, D] -> [B, L, N, P]."""
    projected = ar.linear(h, projection)
    projected = projected * ar.scalar(h.shape[-1] ** -0.5, projected)
    projected = projected.reshape(*h.shape[:2], num_layers, -1)
    return norm.rms_norm(projected, weight, eps, ar)


def per_layer_inputs(
    ids: Array,
    h: Array,
    table: Array,
    projection: Array,
    weight: Array,
    *,
    eps: float,
    num_layers: int,
    ar: Arithmetic,
    record: Recorder,
) -> Array:
    """The context projection and the token rows combined: [B, L, N, P]; h is the scaled embedding."""
    rows = token_rows(ids, table, num_layers, ar)
    record("model.embed_tokens_per_layer", rows)
    context = context_projection(h, projection, weight, eps, num_layers, ar)
    record("model.per_layer_projection_norm", context)
    combined = combine(context, rows, ar)
    record("model.ple", combined)
    return combined


def combine(context: Array, rows: Array, ar: Arithmetic) -> Array:
    """(context + rows) / sqrt(2): two [B, L, N, P] -> [B, L, N, P]."""
    return (context + rows) * ar.scalar(2.0**-0.5, rows)


def gate(h: Array, layer_input: Array, weight: Array, ar: Arithmetic) -> Array:
    """gelu_tanh(h W^T) * this layer's slice of the PLE: h [B, L, D], weight [P, D] -> [B, L, P]."""
    return mlp.gelu_tanh(ar.linear(h, weight), ar) * layer_input
