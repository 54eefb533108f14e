"""Attention: grouped queries, causal or windowed by position, scale 1, softmax wide."""

from __future__ import annotations

import numpy as np

from reference.oracle.arithmetic import Arithmetic, Array


def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
    """Which keys each query sees: q [B, L], k [B, S] -> bool [B, L, S].

    A key is seen when it is no pad, not in the future, and among the last `window` positions, the query's included.
    """
    distance = q_positions[:, :, None] - k_positions[:, None, :]  # [B, L, S]
    seen = (distance >= 0) & k_valid[:, None, :].astype(bool)
    return seen if window is None else seen & (distance < window)


def softmax(scores: Array, ar: Arithmetic, mask: Array | None = None) -> Array:
    """Softmax over the last axis in the wide dtype; masked entries are 0, and so is a row that sees nothing."""
    wide = scores.astype(ar.wide)
    seen = np.ones(wide.shape, bool) if mask is None else np.broadcast_to(mask, wide.shape)
    lowest = np.asarray(-np.inf, wide.dtype)
    peak = np.where(seen, wide, lowest).max(-1, keepdims=True)
    peak = np.where(np.isfinite(peak.astype(np.float64)), peak, ar.scalar(0.0, wide))
    weights = np.where(seen, np.exp(np.where(seen, wide - peak, ar.scalar(0.0, wide))), ar.scalar(0.0, wide))
    total = ar.sum(weights)
    return weights / np.where(total == 0, ar.scalar(1.0, wide), total)


def attend(q: Array, k: Array, v: Array, mask: Array, ar: Arithmetic) -> tuple[Array, Array]:
    """softmax(q k^T) v: q [B, H, L, E], k and v [B, K, S, E], mask [B, L, S] -> context [B, L, H*E] and probs.

    The probabilities are [B, H, L, S]. Query head h reads key/value head h // (H/K).
    """
    batch, heads, length, head_dim = q.shape
    kv_heads = k.shape[1]
    grouped = q.reshape(batch, kv_heads, heads // kv_heads, length, head_dim)  # [B, K, H/K, L, E]
    scores = ar.matmul(grouped, k[:, :, None].swapaxes(-1, -2))  # [B, K, H/K, L, S]
    probs = softmax(scores, ar, mask[:, None, None]).astype(q.dtype)
    context = ar.matmul(probs, v[:, :, None])  # [B, K, H/K, L, E]
    context = context.reshape(batch, heads, length, head_dim).transpose(0, 2, 1, 3)  # [B, L, H, E]
    return context.reshape(batch, length, heads * head_dim), probs.reshape(batch, heads, length, -1)
