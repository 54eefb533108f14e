"""Attention: mask, core, and the module that projects, norms and rotates."""

import mlx.core as mx
from mlx.nn.layers.linear import Linear

from mlx_impl.errors import problem
from mlx_impl.model import norms, params, rope
from mlx_impl.model.config import Config
from mlx_impl.model.kv_cache import KV, FullKVCache
from mlx_impl.model.params import Block
from mlx_impl.model.taps import Tap, unwatched


def attention_mask(
    q_positions: mx.array, k_positions: mx.array, k_valid: mx.array | None, window: int | None
) -> mx.array:
    """Which key each query may see: k <= q, k > q - window, and the key is not padding.

    The window counts the current token: a query at position q sees the keys q - window + 1 to q. Positions are
    compared and not columns, so the order of the columns in a cache does not matter.

    q_positions [B, L], k_positions [B, S] integers, k_valid [B, S] bool or None -> [B, 1, L, S] bool.
    Source: `sliding_window`; `use_bidirectional_attention` "vision" changes nothing for text.
    """
    q = q_positions[:, :, None]  # [B, L, 1]
    k = k_positions[:, None, :]  # [B, 1, S]
    mask = k <= q  # [B, L, S]
    if window is not None:
        mask = mask & (k > q - window)
    if k_valid is not None:
        mask = mask & k_valid[:, None, :]
    return mask[:, None]  # [B, 1, L, S]


def masked_softmax(scores: mx.array, mask: mx.array) -> mx.array:
    """exp(s) / sum exp(s) over the keys that `mask` allows; a row that allows no key is all zeros, never NaN.

    scores [..., S] float32, mask [..., S] bool -> [..., S] float32.
    """
    largest = mx.max(mx.where(mask, scores, -mx.inf), axis=-1, keepdims=True)  # [..., 1]
    weights = mx.where(mask, mx.exp(scores - largest), 0.0)
    total = mx.sum(weights, axis=-1, keepdims=True)  # at least exp(0) = 1 in a row that allows a key
    return weights / mx.maximum(total, 1.0)


def attention_probs(q: mx.array, k: mx.array, mask: mx.array) -> mx.array:
    """softmax(q k^T) with scale 1.0 (q and k are normed) and no softcap.

    Queries are grouped: query head h reads key head h // (H/K). Scores and softmax are computed in float32, because
    scores reach 30 with scale 1, where bf16 has steps of 0.125.
    q [B, H, L, E], k [B, K, S, E], mask [B, 1, L, S] -> [B, H, L, S] float32.
    """
    batch, heads, length, head_dim = q.shape
    kv_heads, columns = k.shape[1], k.shape[2]
    q32 = q.astype(mx.float32).reshape(batch, kv_heads, heads // kv_heads, length, head_dim)  # [B, K, H/K, L, E]
    k32 = k.astype(mx.float32)[:, :, None]  # [B, K, 1, S, E]
    probs = masked_softmax(q32 @ k32.swapaxes(-1, -2), mask[:, :, None])  # [B, K, H/K, L, S]
    return probs.reshape(batch, heads, length, columns)


def attention_context(probs: mx.array, v: mx.array) -> mx.array:
    """probs v, summed in float32, all heads side by side; query head h reads value head h // (H/K).

    probs [B, H, L, S] float32, v [B, K, S, E] -> [B, L, H*E] in v's dtype.
    """
    batch, heads, length, columns = probs.shape
    kv_heads, head_dim = v.shape[1], v.shape[3]
    grouped = probs.reshape(batch, kv_heads, heads // kv_heads, length, columns)  # [B, K, H/K, L, S]
    context = (grouped @ v.astype(mx.float32)[:, :, None]).reshape(batch, heads, length, head_dim)  # [B, H, L, E]
    return context.transpose(0, 2, 1, 3).reshape(batch, length, heads * head_dim).astype(v.dtype)


class Attention(Block):
    """The attention of one layer; a KV-shared layer holds no key or value weights.

    Source: `num_attention_heads`, `Config.head_dim_of`, `kv_heads_of`, `k_eq_v`, `is_kv_shared`, `window_of`.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        width, head_dim = config.hidden_size, config.head_dim_of(layer)
        heads, kv_heads = config.num_attention_heads, config.kv_heads_of(layer)
        self.q_proj = Linear(width, heads * head_dim, bias=False)
        self.q_norm = norms.Norm(head_dim, config.rms_norm_eps)
        if not config.is_kv_shared(layer):
            self.k_proj = Linear(width, kv_heads * head_dim, bias=False)
            self.k_norm = norms.Norm(head_dim, config.rms_norm_eps)
            if not config.k_eq_v(layer):
                self.v_proj = Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = Linear(heads * head_dim, width, bias=False)

    def queries(self, x: mx.array, positions: mx.array, inv_freq: mx.array, tap: Tap) -> mx.array:
        """rope(rms_norm(q_proj x)): x [B, L, D] -> [B, H, L, E]."""
        q = self._heads(params.project(x, self.q_proj))  # [B, H, L, E]
        q = norms.rms_norm(q, self.q_norm.weight, self.config.rms_norm_eps)
        q = tap("self_attn.q_norm", q)
        q = rope.apply_rope(q, positions, inv_freq)
        return tap("self_attn.q_rope", q)

    def keys_values(self, x: mx.array, positions: mx.array, inv_freq: mx.array, tap: Tap) -> tuple[mx.array, mx.array]:
        """k = rope(rms_norm(k_proj x)), v = rms_norm(v_proj x) without weight: x [B, L, D] -> two [B, K, L, E].

        With K = V the values are made from the *raw* key projection, before k_norm and before RoPE.
        """
        eps = self.config.rms_norm_eps
        k_raw = self._heads(params.project(x, self.k_proj))  # [B, K, L, E]
        v_raw = k_raw if self.config.k_eq_v(self.layer) else self._heads(params.project(x, self.v_proj))  # [B, K, L, E]
        k = norms.rms_norm(k_raw, self.k_norm.weight, eps)
        k = tap("self_attn.k_norm", k)
        k = rope.apply_rope(k, positions, inv_freq)
        v = norms.rms_norm(v_raw, None, eps)
        return tap("self_attn.k_rope", k), tap("self_attn.v_norm", v)

    def __call__(
        self,
        x: mx.array,
        positions: mx.array,
        inv_freq: mx.array,
        *,
        valid: mx.array | None = None,
        shared: KV | None = None,
        cache: FullKVCache | None = None,
        tap: Tap = unwatched,
    ) -> tuple[mx.array, KV]:
        """o_proj(attention): x [B, L, D], positions [B, L] -> [B, L, D] in x's dtype, and the KV that was attended to.

        `shared` is the donor's KV as the donor attended to it; a KV-shared layer needs it with and without a cache.
        """
        q = self.queries(x, positions, inv_freq, tap)
        if self.config.is_kv_shared(self.layer):
            if shared is None:
                raise problem(
                    f"layer {self.layer}",
                    got="no donor KV",
                    expected=f"the KV of layer {self.config.kv_donor(self.layer)}",
                    cure="pass it as `shared`",
                )
            kv = shared
        else:
            k, v = self.keys_values(x, positions, inv_freq, tap)
            if cache is None:
                kv = KV(keys=k, values=v, positions=positions, valid=valid)
            else:
                kv = cache.update(k, v, positions, valid)
        mask = attention_mask(positions, kv.positions, kv.valid, self.config.window_of(self.layer))  # [B, 1, L, S]
        probs = tap("self_attn.probs", attention_probs(q, kv.keys, mask))
        context = tap("self_attn.context", attention_context(probs, kv.values))
        out = params.project(context, self.o_proj)  # [B, L, D]
        return tap("self_attn.o_proj", out), kv

    def _heads(self, x: mx.array) -> mx.array:
        """[B, L, heads*E] -> [B, heads, L, E]."""
        batch, length, _ = x.shape
        return x.reshape(batch, length, -1, self.config.head_dim_of(self.layer)).transpose(0, 2, 1, 3)
