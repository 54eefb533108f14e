"""One layer of the fast path: its matrices are joined, and the hidden states of one sequence are a matrix [L, D]."""

import functools

import mlx.core as mx

from mlx_impl.fast.attention import Rotation, heads_first, rotate
from mlx_impl.fast.joined import joined
from mlx_impl.model import mlp, moe
from mlx_impl.model.layer import DecoderLayer


class FusedLayer:
    """The steps before and after the core of attention, with the weights of a `DecoderLayer`."""

    def __init__(self, layer: DecoderLayer) -> None:
        self.plain = layer
        config, attention = layer.config, layer.self_attn
        self.has_keys = not config.is_kv_shared(layer.layer)
        self._k_eq_v = config.k_eq_v(layer.layer)
        self._head_dim = config.head_dim_of(layer.layer)
        self._heads = config.num_attention_heads
        kv_heads = config.kv_heads_of(layer.layer) if self.has_keys else 0
        self._norm = functools.partial(mx.fast.rms_norm, eps=config.rms_norm_eps)
        parts, norms = [attention.q_proj], [attention.q_norm.weight] * self._heads
        if self.has_keys:
            parts += [attention.k_proj] if self._k_eq_v else [attention.k_proj, attention.v_proj]
            norms += [attention.k_norm.weight] * kv_heads + [mx.ones(self._head_dim)] * kv_heads
        self._qkv = joined(parts)
        self._norms = mx.stack(norms).astype(mx.float32).reshape(len(norms), 2, -1)  # [H + 2K, 2, E/2]
        self._partner_norms = self._norms[:, ::-1]
        self._is_value = (mx.arange(len(norms)) >= self._heads + kv_heads)[:, None, None]
        # A single number would be written into the compiled step, and every layer compiled on its own.
        self._scalar = mx.broadcast_to(layer.layer_scalar, (config.hidden_size,))  # [D]
        self._o = joined([attention.o_proj])
        self._gate_up = joined([layer.mlp.gate_proj, layer.mlp.up_proj])
        self._down = joined([layer.mlp.down_proj])
        if config.hidden_size_per_layer_input > 0:
            self._ple_gate = joined([layer.per_layer_input_gate])
            self._ple_projection = joined([layer.per_layer_projection])

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays that were derived from the weights."""
        return [self._norms, self._partner_norms, self._is_value, self._scalar]

    def project(self, h: mx.array, rotation: Rotation) -> tuple[mx.array, mx.array | None]:
        """h [L, D] -> q [1, H, L, E], and the new keys and values [1, 2K, L, E] of a layer that has some.

        All heads are normed at once. The weights of the norms are applied with the rotation; values have no weight.
        """
        rows = self._qkv(self._norm(h, self.plain.input_layernorm.weight))
        normed = self._norm(rows.reshape(rows.shape[0], -1, self._head_dim), None)
        if self.has_keys and self._k_eq_v:
            normed = mx.concatenate([normed, normed[:, self._heads :]], axis=1)
        heads = rotate(normed, self._norms, self._partner_norms, self._is_value, *rotation)  # [L, H + 2K, 2, E/2]
        if not self.has_keys:
            return heads_first(heads, self._head_dim), None
        q, kv = mx.split(heads, [self._heads], axis=1)
        return heads_first(q, self._head_dim), heads_first(kv, self._head_dim)

    def finish(self, h: mx.array, context: mx.array, ple_slice: mx.array | None) -> mx.array:
        """The rest of the layer after the core of attention: h [L, D], context [L, H*E], ple_slice [L, P] -> [L, D]."""
        plain, norm = self.plain, self._norm
        h = h + norm(self._o(context), plain.post_attention_layernorm.weight)
        h = h + norm(self._feed_forward(h), plain.post_feedforward_layernorm.weight)
        if ple_slice is not None:
            gated = mlp.gelu_tanh(self._ple_gate(h)) * ple_slice
            h = h + norm(self._ple_projection(gated), plain.post_per_layer_input_norm.weight)
        return h * self._scalar

    def _feed_forward(self, h: mx.array) -> mx.array:
        plain, norm = self.plain, self._norm
        gate, up = mx.split(self._gate_up(norm(h, plain.pre_feedforward_layernorm.weight)), 2, axis=-1)
        dense = self._down(mlp.gelu_tanh(gate) * up)
        facts = plain.config.moe
        if facts is None:
            return dense
        router, experts, eps = plain.router, plain.experts, plain.config.rms_norm_eps
        indices, weights = moe.route(h, router.scale, router.proj, router.per_expert_scale, facts.top_k, eps)
        x = norm(h, plain.pre_feedforward_layernorm_2.weight)
        sparse = moe.gathered_experts(x, indices, weights, experts.gate_up_proj, experts.down_proj)
        return norm(dense, plain.post_feedforward_layernorm_1.weight) + norm(
            sparse, plain.post_feedforward_layernorm_2.weight
        )
