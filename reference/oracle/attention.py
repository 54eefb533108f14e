"""Attention: grouped queries, causal or windowed by position, scale 1, softmax wide."""

from __future__ import annotations

from reference.oracle.arithmetic import Array
from reference.oracle.softmax import Softmax


class Attention(Softmax):
    """From queries and keys to probabilities, from probabilities and values to the context."""

    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        """Which keys each query sees: q [B, L], k [B, S] -> bool [B, L, S].

        A key is seen when it is no pad, not in the future, and among the last `window` positions, the query's included.
        """
        distance = q_positions[:, :, None] - k_positions[:, None, :]  # [B, L, S]
        seen = (distance >= 0) & k_valid[:, None, :].astype(bool)
        return seen if window is None else seen & (distance < window)

    def attention_scores(self, q: Array, k: Array) -> Array:
        """q k^T at scale 1: q [B, H, L, E], k [B, K, S, E] -> [B, H, L, S]. Query head h reads key head h // (H/K)."""
        batch, heads, length, head_dim = q.shape
        kv_heads = k.shape[1]
        grouped = q.reshape(batch, kv_heads, heads // kv_heads, length, head_dim)  # [B, K, H/K, L, E]
        scores = self.ar.matmul(grouped, k[:, :, None].swapaxes(-1, -2))  # [B, K, H/K, L, S]
        return scores.reshape(batch, heads, length, -1)

    def attention_probs(self, q: Array, k: Array, mask: Array) -> Array:
        """softmax(q k^T): q [B, H, L, E], k [B, K, S, E], mask [B, L, S] -> [B, H, L, S], rounded to q's dtype."""
        return self.softmax(self.attention_scores(q, k), mask[:, None]).astype(q.dtype)

    def attention_context(self, probs: Array, v: Array) -> Array:
        """probs v, heads side by side: probs [B, H, L, S], v [B, K, S, E] -> [B, L, H*E]."""
        batch, heads, length, keys = probs.shape
        kv_heads, head_dim = v.shape[1], v.shape[-1]
        grouped = probs.reshape(batch, kv_heads, heads // kv_heads, length, keys)  # [B, K, H/K, L, S]
        context = self.ar.matmul(grouped, v[:, :, None])  # [B, K, H/K, L, E]
        context = context.reshape(batch, heads, length, head_dim).transpose(0, 2, 1, 3)  # [B, L, H, E]
        return context.reshape(batch, length, heads * head_dim)
