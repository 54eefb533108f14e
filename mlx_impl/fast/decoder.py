"""The decoder once more, for speed: fewer and larger operations, and a decode step that is compiled as a whole.

It computes what `decoder.Decoder` computes, which is the readable specification, and holds the same weights; rounding
differs, since norms and attention are MLX's own kernels. One sequence at a time, no taps.
"""

import functools
from collections.abc import Callable, Sequence

import mlx.core as mx

from mlx_impl.checkpoint.streamed import StreamedLayer
from mlx_impl.errors import problem
from mlx_impl.fast.attention import Attended, prefill_bias, turn
from mlx_impl.fast.joined import joined
from mlx_impl.fast.layer import FusedLayer
from mlx_impl.fast.static_cache import StaticCache
from mlx_impl.model import embedding, params, rope
from mlx_impl.model.decoder import Decoder, softcap

_Attend = Callable[[int, mx.array], Attended]
"""Layer and its new keys and values [1, 2K, L, E] -> what the layer attends to."""


class FusedDecoder:
    """Takes the place of a `Decoder` whose weights it uses: call it with ids [1, L] and caches of `make_caches`."""

    def __init__(self, decoder: Decoder) -> None:
        """Raises MlxImplError for a decoder whose layers are streamed."""
        if any(isinstance(layer, StreamedLayer) for layer in decoder.model.layers):
            raise problem("decoder", got="streamed layers", expected="layers in memory", cure='load with "resident"')
        self.config = decoder.config
        self.model = decoder.model
        self.tensors = decoder.tensors
        self.layers = [FusedLayer(layer) for layer in decoder.model.layers]
        if self.config.hidden_size_per_layer_input > 0:
            self._per_layer_projection = joined([self.model.per_layer_model_projection])
        self._frequencies = {
            kind: rope.layer_frequencies(self.config, self.config.layer_types.index(kind))
            for kind in set(self.config.layer_types)
        }
        # What is not computed yet would become a part of the compiled step.
        mx.eval([layer.arrays for layer in self.layers], list(self._frequencies.values()))
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
        return self._prefill(ids[0], caches, last_only)[None]

    def step(self, ids: mx.array, caches: Sequence[StaticCache]) -> mx.array:
        """One token more behind at least one: ids [1, 1] -> logits [1, 1, V]."""
        buffers = [cache.with_room(1) for cache in caches]
        offset, rings = caches[0].offset, [cache.window is not None for cache in caches]
        full = offset >= self.config.sliding_window
        logits, written = self._step(ids[0], self._rows(ids[0]), mx.array(offset), buffers, rings, full)
        for cache, buffer in zip(caches, written, strict=True):
            cache.buffer = buffer
            cache.offset += 1
        result: mx.array = logits[None]
        return result

    def _rows(self, ids: mx.array) -> mx.array | None:
        """These tokens' rows of the per-layer table, if any: outside the compiled step, since it may lie in a file."""
        if self.config.hidden_size_per_layer_input == 0:
            return None
        return params.lookup(ids, self.model.embed_tokens_per_layer)  # [L, N*P]

    def _decode(
        self,
        ids: mx.array,
        rows: mx.array | None,
        position: mx.array,
        buffers: list[mx.array],
        rings: list[bool],
        rings_are_full: bool,
    ) -> tuple[mx.array, list[mx.array]]:
        """One step as a pure function: ids [1], position [], buffers [1, 2K, S, E] -> logits [1, V], new buffers.

        Once a ring is full, its layer needs no mask: the step is compiled once more.
        """
        written = list(buffers)
        heads, dtype = self.config.num_attention_heads, buffers[0].dtype

        @functools.cache
        def unseen(columns: int, kv_heads: int, window: int | None) -> mx.array:
            """Buffers of one length fill up alike: a window up to this token's column is seen. [1, K, H/K, S]"""
            column = mx.arange(columns)
            seen = column <= position
            if window is not None:
                seen &= column > position - window
            bias = mx.where(seen, 0.0, -mx.inf).astype(dtype)
            return mx.broadcast_to(bias, (1, kv_heads, heads // kv_heads, columns))

        @functools.cache
        def here(columns: int) -> mx.array:
            """Where this token's column lies in a ring. [S, 1]"""
            return (mx.arange(columns) == position % columns)[:, None]

        def attend(own: int, kv: mx.array) -> Attended:
            columns = buffers[own].shape[2]
            if rings[own]:  # it is short: to write all of it is one operation, to write into it are two
                written[own] = mx.where(here(columns), kv, buffers[own])
            else:
                written[own] = mx.slice_update(buffers[own], kv, start_indices=position, axes=(2,))
            full = rings[own] and rings_are_full
            bias = None if full else unseen(columns, kv.shape[1] // 2, self.config.window_of(own))
            return Attended(written[own], bias)

        h = self._through(ids, rows, position, attend, last_only=False)
        return self._logits(h), written

    def _prefill(self, ids: mx.array, caches: Sequence[StaticCache], last_only: bool) -> mx.array:
        """ids [L] -> logits [L, V], or [1, V]."""
        length, offset = ids.shape[0], caches[0].offset

        def attend(own: int, kv: mx.array) -> Attended:
            attended = caches[own].extend(kv)
            bias = prefill_bias(length, attended.shape[2], self.config.window_of(own), kv.dtype)
            return Attended(attended, bias)

        return self._logits(self._through(ids, self._rows(ids), mx.array(offset), attend, last_only))

    def _through(
        self, ids: mx.array, rows: mx.array | None, position: mx.array, attend: _Attend, last_only: bool
    ) -> mx.array:
        """All layers: ids [L] at position, position + 1, ... -> the hidden state [L, D], or its last row alone.

        Layers without keys of their own leave nothing behind: where one row is wanted, they compute one.
        """
        config = self.config
        h = embedding.scaled_embedding(ids, self.model.embed_tokens)  # [L, D]
        per_layer = None if rows is None else self._per_layer(h, rows)
        turns = {kind: turn(position, h.shape[0], inv_freq) for kind, inv_freq in self._frequencies.items()}
        donors: dict[int, Attended] = {}
        for i, layer in enumerate(self.layers):
            if last_only and i == len(config.own_kv_layers):
                h, turns = h[-1:], {kind: (cos[-1:], sin[-1:]) for kind, (cos, sin) in turns.items()}
                per_layer = None if per_layer is None else [x[-1:] for x in per_layer]
            q, kv = layer.project(h, turns[config.layer_types[i]])
            if kv is not None:
                donors[i] = attend(i, kv)
            h = layer.finish(h, donors[config.kv_donor(i)](q), None if per_layer is None else per_layer[i])
        return h[-1:] if last_only else h

    def _per_layer(self, h: mx.array, rows: mx.array) -> list[mx.array]:
        """PLE: h [L, D], rows [L, N*P] -> [L, P] for each of N layers."""
        norm, layers = self.model.per_layer_projection_norm, self.config.num_hidden_layers
        tokens = rows * embedding.embedding_scale(norm.weight.shape[-1], rows.dtype)
        projected = _times(self._per_layer_projection(h), h.shape[-1] ** -0.5).reshape(h.shape[0], layers, -1)
        context = mx.fast.rms_norm(projected, norm.weight, norm.eps).reshape(tokens.shape)
        return list(mx.split(_times(context + tokens, 0.5**0.5), layers, axis=-1))

    def _logits(self, h: mx.array) -> mx.array:
        normed = mx.fast.rms_norm(h, self.model.norm.weight, self.model.norm.eps)
        return softcap(params.unembed(normed, self.model.embed_tokens), self.config.final_logit_softcapping)


def _times(x: mx.array, factor: float) -> mx.array:
    """x * factor in float32: no checkpoint rounds these constants."""
    return (x.astype(mx.float32) * factor).astype(x.dtype)
