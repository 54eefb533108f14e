"""The decoder once more, for speed: fewer and larger operations, and a decode step that is compiled as a whole.

It computes what `decoder.Decoder` computes, which is the readable specification, and holds the same weights; rounding
differs, since norms, RoPE and attention are MLX's own kernels. One sequence at a time, no taps.
"""

import functools
from collections.abc import Callable, Sequence

import mlx.core as mx

from mlx_impl import embedding, mlp, moe, params, rope
from mlx_impl.decoder import Decoder, softcap
from mlx_impl.errors import problem
from mlx_impl.joined import joined
from mlx_impl.layer import DecoderLayer
from mlx_impl.params import Weight
from mlx_impl.static_cache import StaticCache

_Attended = tuple[mx.array, mx.array, mx.array | None]
"""Keys and values [1, K, S, E] and the mask [L, S] of one pass; no mask where every column is seen."""
_Attend = Callable[[int, mx.array, mx.array], _Attended]
"""Layer and its new keys and values [1, K, L, E] -> what the layer attends to."""


class FusedDecoder:
    """Takes the place of a `Decoder` whose weights it uses: call it with ids [1, L] and caches of `make_caches`."""

    def __init__(self, decoder: Decoder) -> None:
        self.config = decoder.config
        self.model = decoder.model
        self.layers = [_Layer(layer) for layer in decoder.model.layers]
        self._frequencies = {
            kind: _wavelengths(rope.layer_frequencies(self.config, self.config.layer_types.index(kind)))
            for kind in set(self.config.layer_types)
        }
        self._step = mx.compile(self._decode)

    def make_caches(self) -> list[StaticCache]:
        """Fresh caches, one for each layer with keys of its own."""
        return [StaticCache(self.config.window_of(i)) for i in self.config.own_kv_layers]

    def __call__(self, ids: mx.array, caches: Sequence[StaticCache] | None = None, last_only: bool = False) -> mx.array:
        """ids [1, L] -> logits [1, L, V], or [1, 1, V] of the last token, in the weights' dtype."""
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise problem("ids", got=f"shape {tuple(ids.shape)}", expected="[1, L]", cure="use Decoder for a batch")
        caches = self.make_caches() if caches is None else caches
        if ids.shape[1] == 1 and caches[0].offset > 0:
            return self.step(ids, caches)
        return self._prefill(ids, caches, last_only)

    def step(self, ids: mx.array, caches: Sequence[StaticCache]) -> mx.array:
        """One token more behind at least one: ids [1, 1] -> logits [1, 1, V]."""
        buffers = [cache.with_room(1) for cache in caches]
        offset = caches[0].offset
        logits, new_keys, new_values = self._step(
            ids,
            self._rows(ids),
            mx.array(offset),
            offset >= self.config.sliding_window,
            [k for k, _ in buffers],
            [v for _, v in buffers],
        )
        for cache, k, v in zip(caches, new_keys, new_values, strict=True):
            cache.keys, cache.values = k, v
            cache.offset += 1
        result: mx.array = logits
        return result

    def _rows(self, ids: mx.array) -> mx.array | None:
        """These tokens' rows of the per-layer table, if any: outside the compiled step, since it may lie in a file."""
        if self.config.hidden_size_per_layer_input == 0:
            return None
        return params.lookup(ids, self.model.embed_tokens_per_layer)  # [1, L, N*P]

    def _decode(
        self,
        ids: mx.array,
        rows: mx.array | None,
        position: mx.array,
        rings_are_full: bool,
        keys: list[mx.array],
        values: list[mx.array],
    ) -> tuple[mx.array, list[mx.array], list[mx.array]]:
        """One step as a pure function: ids [1, 1], position [], buffers [1, K, S, E] -> logits, new buffers.

        Once every window is full, its layers need no mask: the step is compiled once more.
        """
        new_keys, new_values = list(keys), list(values)
        seen: dict[int, mx.array] = {}

        def mask(columns: int) -> mx.array:
            """Buffers of one length fill up alike: the columns up to this token's."""
            return seen.setdefault(columns, mx.arange(columns) <= position)

        def attend(own: int, k: mx.array, v: mx.array) -> _Attended:
            columns = keys[own].shape[2]
            window = self.config.window_of(own)
            at = position if window is None else position % window
            new_keys[own] = mx.slice_update(keys[own], k, start_indices=at, axes=(2,))
            new_values[own] = mx.slice_update(values[own], v, start_indices=at, axes=(2,))
            unmasked = window is not None and rings_are_full
            return new_keys[own], new_values[own], None if unmasked else mask(columns)

        h = self._through(ids, rows, position, attend, last_only=False)
        return self._logits(h), new_keys, new_values

    def _prefill(self, ids: mx.array, caches: Sequence[StaticCache], last_only: bool) -> mx.array:
        length, offset = ids.shape[1], caches[0].offset

        def attend(own: int, k: mx.array, v: mx.array) -> _Attended:
            all_k, all_v = caches[own].extend(k, v)
            return all_k, all_v, _prefill_mask(length, all_k.shape[2], self.config.window_of(own))

        return self._logits(self._through(ids, self._rows(ids), mx.array(offset), attend, last_only))

    def _through(
        self, ids: mx.array, rows: mx.array | None, position: mx.array, attend: _Attend, last_only: bool
    ) -> mx.array:
        """All layers: ids [1, L] at position, position + 1, ... -> the hidden state [1, L, D], or its last row alone.

        Layers without keys of their own leave nothing behind: where one row is wanted, they compute one.
        """
        config = self.config
        h = embedding.scaled_embedding(ids, self.model.embed_tokens)  # [1, L, D]
        per_layer = None if rows is None else self._per_layer(h, rows)  # [1, L, N, P]
        donors: dict[int, _Attended] = {}
        for i, layer in enumerate(self.layers):
            if last_only and i == len(config.own_kv_layers):
                position = position + h.shape[1] - 1
                h = h[:, -1:]
                per_layer = None if per_layer is None else per_layer[:, -1:]
                donors = {own: (k, v, None if mask is None else mask[-1:]) for own, (k, v, mask) in donors.items()}
            x = layer.input_norm(h)
            q, k, v = layer.project(x, position, self._frequencies[config.layer_types[i]])
            if k is not None and v is not None:
                donors[i] = attend(i, k, v)
            context = _attention(q, *donors[config.kv_donor(i)])  # [1, L, H*E]
            h = layer.finish(h, context, None if per_layer is None else per_layer[:, :, i])
        return h[:, -1:] if last_only else h

    def _per_layer(self, h: mx.array, rows: mx.array) -> mx.array:
        """PLE: h [1, L, D], rows [1, L, N*P] -> [1, L, N, P]."""
        model, norm = self.model, self.model.per_layer_projection_norm
        shape = (*h.shape[:2], self.config.num_hidden_layers, -1)
        tokens = rows.reshape(shape) * embedding.embedding_scale(norm.weight.shape[-1], rows.dtype)
        projected = params.project(h, model.per_layer_model_projection).reshape(shape)
        context = mx.fast.rms_norm(_times(projected, h.shape[-1] ** -0.5), norm.weight, norm.eps)
        return _times(context + tokens, 0.5**0.5)

    def _logits(self, h: mx.array) -> mx.array:
        normed = mx.fast.rms_norm(h, self.model.norm.weight, self.model.norm.eps)
        return softcap(params.unembed(normed, self.model.embed_tokens), self.config.final_logit_softcapping)


class _Layer:
    """One layer with its matrices joined."""

    def __init__(self, layer: DecoderLayer) -> None:
        self.plain = layer
        config, attention = layer.config, layer.self_attn
        self.head_dim = config.head_dim_of(layer.layer)
        self.heads, self.eps = config.num_attention_heads, config.rms_norm_eps
        self.has_keys = not config.is_kv_shared(layer.layer)
        self.kv_heads = config.kv_heads_of(layer.layer) if self.has_keys else 0
        self.k_eq_v = config.k_eq_v(layer.layer)
        parts = [attention.q_proj]
        if self.has_keys:
            parts += [attention.k_proj] if self.k_eq_v else [attention.k_proj, attention.v_proj]
        self.qkv: Weight = joined(parts)
        self.gate_up: Weight = joined([layer.mlp.gate_proj, layer.mlp.up_proj])

    def input_norm(self, h: mx.array) -> mx.array:
        return mx.fast.rms_norm(h, self.plain.input_layernorm.weight, self.eps)

    def project(
        self, x: mx.array, position: mx.array, wavelengths: mx.array
    ) -> tuple[mx.array, mx.array | None, mx.array | None]:
        """x [1, L, D] -> q [1, H, L, E], and k, v [1, K, L, E] of layers that have some."""
        attention = self.plain.self_attn
        rows = params.project(x, self.qkv)
        heads = rows.reshape(*rows.shape[:2], -1, self.head_dim)  # [1, L, H + K + K, E]

        def turn(x: mx.array) -> mx.array:
            return mx.fast.rope(
                x, self.head_dim, traditional=False, base=None, scale=1.0, offset=position, freqs=wavelengths
            )

        def cut(first: int, count: int) -> mx.array:
            return heads[:, :, first : first + count].transpose(0, 2, 1, 3)  # [1, count, L, E]

        q = turn(mx.fast.rms_norm(cut(0, self.heads), attention.q_norm.weight, self.eps))
        if not self.has_keys:
            return q, None, None
        raw = cut(self.heads, self.kv_heads)
        k = turn(mx.fast.rms_norm(raw, attention.k_norm.weight, self.eps))
        v = raw if self.k_eq_v else cut(self.heads + self.kv_heads, self.kv_heads)
        return q, k, mx.fast.rms_norm(v, None, self.eps)

    def finish(self, h: mx.array, context: mx.array, ple_slice: mx.array | None) -> mx.array:
        """What follows the attention's core: h [1, L, D], context [1, L, H*E], ple_slice [1, L, P] -> [1, L, D]."""
        plain, norm = self.plain, functools.partial(mx.fast.rms_norm, eps=self.eps)
        h = h + norm(params.project(context, plain.self_attn.o_proj), plain.post_attention_layernorm.weight)
        h = h + norm(self._feed_forward(h), plain.post_feedforward_layernorm.weight)
        if ple_slice is not None:
            gated = mlp.gelu_tanh(params.project(h, plain.per_layer_input_gate)) * ple_slice
            h = h + norm(params.project(gated, plain.per_layer_projection), plain.post_per_layer_input_norm.weight)
        return h * plain.layer_scalar

    def _feed_forward(self, h: mx.array) -> mx.array:
        plain, norm = self.plain, functools.partial(mx.fast.rms_norm, eps=self.eps)
        rows = params.project(norm(h, plain.pre_feedforward_layernorm.weight), self.gate_up)
        gate, up = mx.split(rows, 2, axis=-1)
        dense = params.project(mlp.gelu_tanh(gate) * up, plain.mlp.down_proj)
        facts = plain.config.moe
        if facts is None:
            return dense
        router, experts = plain.router, plain.experts
        indices, weights = moe.route(h, router.scale, router.proj, router.per_expert_scale, facts.top_k, self.eps)
        x = norm(h, plain.pre_feedforward_layernorm_2.weight)
        sparse = moe.gathered_experts(x, indices, weights, experts.gate_up_proj, experts.down_proj)
        return norm(dense, plain.post_feedforward_layernorm_1.weight) + norm(
            sparse, plain.post_feedforward_layernorm_2.weight
        )


def _attention(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None) -> mx.array:
    """q [1, H, L, E], k, v [1, K, S, E], mask [L, S] or [S] -> [1, L, H*E]."""
    if q.shape[2] == 1:
        return _attention_of_one(q, k, v, mask)
    context = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask=mask)
    return context.transpose(0, 2, 1, 3).reshape(1, q.shape[2], -1)


def _attention_of_one(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None) -> mx.array:
    """The same for L = 1 in the fewest products: the queries of a key head are the rows of one matrix."""
    heads, width = k.shape[1], q.shape[-1]
    scores = q.reshape(1, heads, -1, width) @ k.swapaxes(-1, -2)  # [1, K, H/K, S]
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    context = mx.softmax(scores, axis=-1, precise=True) @ v  # [1, K, H/K, E]
    return context.reshape(1, 1, -1)


def _prefill_mask(length: int, columns: int, window: int | None) -> mx.array | None:
    """Which of the S columns, the last L of them new, each of L queries sees; None where one query sees all."""
    if length == 1 and (window is None or columns <= window):
        return None
    query = mx.arange(columns - length, columns)[:, None]  # [L, 1]
    key = mx.arange(columns)  # [S]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)


def _times(x: mx.array, factor: float) -> mx.array:
    """x * factor in float32: no checkpoint rounds these constants."""
    return (x.astype(mx.float32) * factor).astype(x.dtype)


def _wavelengths(inv_freq: mx.array) -> mx.array:
    """What `mx.fast.rope` divides by: infinite where a pair stands still."""
    return mx.where(inv_freq > 0, 1.0 / inv_freq, mx.inf)
