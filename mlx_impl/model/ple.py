"""Per-layer embeddings (PLE): a small second embedding that every layer of E2B and E4B adds."""

import math

import mlx.core as mx

from mlx_impl.model import embedding, mlp, norms, params
from mlx_impl.model.params import Weight
from mlx_impl.model.taps import Tap, unwatched


def per_layer_inputs(
    ids: mx.array,
    h: mx.array,
    table: Weight,
    projection: Weight,
    norm_weight: mx.array,
    eps: float,
    num_layers: int,
    tap: Tap = unwatched,
) -> mx.array:
    """(table[ids] * sqrt(P) + rms_norm(projection h * D^-0.5)) * 2^-0.5.

    ids [B, L], h [B, L, D] the *scaled* embedding, table [V, N*P], projection [N*P, D], norm_weight [P]
    -> [B, L, N, P] in h's dtype. Source: `hidden_size_per_layer_input`, `vocab_size_per_layer_input`.
    """
    batch, length, width = h.shape
    shape = (batch, length, num_layers, norm_weight.shape[-1])
    # The scale is that of one layer's slice, sqrt(P) and not sqrt(N*P), so the rows are cut before they are scaled.
    rows = params.lookup(ids, table).reshape(shape)  # [B, L, N*P] -> [B, L, N, P]
    tokens = rows * embedding.embedding_scale(shape[-1], rows.dtype)
    tokens = tap("model.embed_tokens_per_layer", tokens)

    projected = params.project(h, projection).reshape(shape)  # [B, L, N*P] -> [B, L, N, P]
    # Both constants multiply in float32: neither is a power of two, and no checkpoint rounds them.
    scaled = (projected.astype(mx.float32) / math.sqrt(width)).astype(h.dtype)
    context = norms.rms_norm(scaled, norm_weight, eps)
    context = tap("model.per_layer_projection_norm", context)

    total = context + tokens
    result = (total.astype(mx.float32) * math.sqrt(0.5)).astype(h.dtype)
    return tap("model.ple", result)


def gated(
    h: mx.array,
    ple_slice: mx.array,
    gate: Weight,
    projection: Weight,
    norm_weight: mx.array,
    eps: float,
    tap: Tap = unwatched,
) -> mx.array:
    """rms_norm(projection(gelu_tanh(gate h) * ple_slice)), which one layer adds to its residual.

    h [B, L, D], ple_slice [B, L, P], gate [P, D], projection [D, P], norm_weight [D] -> [B, L, D] in h's dtype.
    """
    product = mlp.gelu_tanh(params.project(h, gate)) * ple_slice  # [B, L, P]
    product = tap("ple_gated", product)
    projected = params.project(product, projection)  # [B, L, D]
    projected = tap("per_layer_projection", projected)
    normed = norms.rms_norm(projected, norm_weight, eps)
    return tap("post_per_layer_input_norm", normed)
