"""The mixture of experts of 26B-A4B: a router, and experts, each of which is a small gated MLP."""

import math

import mlx.core as mx

from mlx_impl.model import mlp, norms, params
from mlx_impl.model.params import Stack, Weight
from mlx_impl.model.taps import Tap, unwatched


def route(
    h: mx.array,
    scale: mx.array,
    proj: Weight,
    per_expert_scale: mx.array,
    top_k: int,
    eps: float,
    tap: Tap = unwatched,
) -> tuple[mx.array, mx.array]:
    """Choose `top_k` experts for every token.

    logits = proj(rms_norm(h) * scale * D^-0.5); p = softmax(logits) over all experts; the top_k largest p are
    divided by their sum, then multiplied by per_expert_scale. Among equal p the lower index wins.

    h [B, L, D] is the raw residual after attention, *not* a pre-feed-forward norm of it (the router norms it
    itself); scale [D], proj [X, D], per_expert_scale [X] -> indices [B, L, top_k] int32 by falling weight, and
    weights [B, L, top_k] float32. Source: `top_k_experts`.
    """
    normed = norms.rms_norm(h, None, eps)
    width = h.shape[-1]
    scaled = (normed.astype(mx.float32) * scale.astype(mx.float32) / math.sqrt(width)).astype(h.dtype)
    logits = params.project(scaled, proj)  # [B, L, X]
    logits = tap("router.proj", logits)
    probs = mx.softmax(logits.astype(mx.float32), axis=-1)  # [B, L, X]
    indices = mx.argsort(-probs, axis=-1)[..., :top_k].astype(mx.int32)  # [B, L, top_k]; the sort is stable
    chosen = mx.take_along_axis(probs, indices, axis=-1)  # [B, L, top_k]
    weights = chosen / mx.sum(chosen, axis=-1, keepdims=True)
    weights = weights * per_expert_scale.astype(mx.float32)[indices]
    if tap is not unwatched:  # the pass itself needs no matrix
        matrix = combine_matrix(indices, weights, logits.shape[-1])
        if (given := tap("router.combine", matrix)) is not matrix:
            indices = mx.argsort(-given, axis=-1)[..., :top_k].astype(mx.int32)
            weights = mx.take_along_axis(given, indices, axis=-1)
    return indices, weights


def combine_matrix(indices: mx.array, weights: mx.array, num_experts: int) -> mx.array:
    """The choice without its order: indices, weights [B, L, top_k] -> [B, L, X] in weights' dtype, 0 if not chosen."""
    is_chosen = indices[..., None] == mx.arange(num_experts)  # [B, L, top_k, X]
    return mx.sum(mx.where(is_chosen, weights[..., None], 0.0), axis=-2).astype(weights.dtype)  # [B, L, X]


def expert_mlp(x: mx.array, gate_up: Weight, down: Weight) -> mx.array:
    """down(gelu_tanh(gate x) * (up x)) of one expert: x [T, D], gate_up [2F, D], down [D, F] -> [T, D] in x's dtype.

    The first half of gate_up is the gate, the second half is the up projection.
    """
    gate, up = mx.split(params.project(x, gate_up), 2, axis=-1)  # contiguous halves, each [T, F]
    return params.project(mlp.gelu_tanh(gate) * up, down)


def apply_experts(
    x: mx.array,
    indices: mx.array,
    weights: mx.array,
    gate_up: Stack,
    down: Stack,
    tap: Tap = unwatched,
) -> mx.array:
    """The weighted sum of the chosen experts' outputs, summed in float32.

    The experts run one after the other, each on the tokens that chose it. That reads the choice back to Python once
    in every layer, and works in every dtype on every device (on the CPU `mx.gather_mm` has float32 only).

    x [B, L, D], indices and weights [B, L, top_k], gate_up [X, 2F, D], down [X, D, F] -> [B, L, D] in x's dtype.
    Source: `num_experts`, `moe_intermediate_size`.
    """
    width = x.shape[-1]
    top_k = indices.shape[-1]
    tokens = x.reshape(-1, width)  # [T, D], T = B * L
    slot_weights = weights.reshape(-1).astype(mx.float32)  # [T * top_k]
    choice: list[int] = indices.reshape(-1).tolist()  # type: ignore[assignment]  # one axis makes a flat list
    slots_of: dict[int, list[int]] = {}
    for slot, expert in enumerate(choice):
        slots_of.setdefault(expert, []).append(slot)

    total = mx.zeros(tokens.shape, dtype=mx.float32)
    for expert in sorted(slots_of):
        slots = slots_of[expert]
        rows = mx.array([slot // top_k for slot in slots])  # a token chooses an expert once: rows are distinct
        y = expert_mlp(tokens[rows], params.expert(gate_up, expert), params.expert(down, expert))  # [rows, D]
        y32 = y.astype(mx.float32) * slot_weights[mx.array(slots)][:, None]
        total = total.at[rows].add(y32)
    out = total.astype(x.dtype).reshape(x.shape)  # [B, L, D]
    return tap("experts", out)


def gathered_experts(x: mx.array, indices: mx.array, weights: mx.array, gate_up: Stack, down: Stack) -> mx.array:
    """`apply_experts` in two products over gathered matrices; it does not read the choice, so a step can be compiled.

    The shapes are those of `apply_experts`. In bf16 and f16 MLX has these products on GPUs only.
    """
    rows = mx.expand_dims(x, (-2, -3))  # [B, L, 1, 1, D]
    gate, up = mx.split(params.gathered(rows, gate_up, indices), 2, axis=-1)  # each [B, L, top_k, 1, F]
    y = params.gathered(mlp.gelu_tanh(gate) * up, down, indices).squeeze(-2)  # [B, L, top_k, D]
    total = mx.sum(y.astype(mx.float32) * weights[..., None], axis=-2)  # [B, L, D]
    return total.astype(x.dtype)
