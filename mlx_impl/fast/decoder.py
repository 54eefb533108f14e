"""A second decoder, for speed: it uses fewer and larger operations, and its decode step is compiled as a whole.

It computes what `model.decoder.Decoder` computes, which is the readable specification, with the same weights. Rounding
differs, because norms and attention are MLX's own kernels. It takes one sequence at a time and has no taps.
"""

import functools
from collections.abc import Callable, Sequence

import mlx.core as mx

from mlx_impl.checkpoint.streamed import StreamedLayer
from mlx_impl.errors import problem
from mlx_impl.fast.attention import Attended, prefill_bias, rotation
from mlx_impl.fast.joined import joined
from mlx_impl.fast.layer import FusedLayer
from mlx_impl.fast.static_cache import StaticCache
from mlx_impl.model import embedding, params, rope
from mlx_impl.model.decoder import Decoder, softcap

_Attend = Callable[[int, mx.array], Attended]
"""Layer and its new keys and values [1, 2K, L, E] -> what the layer attends to."""


class FusedDecoder:
    """Replaces a `Decoder`, whose weights it uses; it is called with ids [1, L] and the caches of `make_caches`."""

    def __init__(self, decoder: Decoder) -> None:
        """Raise MlxImplError for a decoder whose layers are streamed."""
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
        # Arrays that are not evaluated would become a part of the compiled step.
        mx.eval([layer.arrays for layer in self.layers], list(self._frequencies.values()))
        self._step = mx.compile(self._decode)

    def make_caches(self) -> list[StaticCache]:
        """Empty caches, one for each layer with keys of its own."""
        return [StaticCache(self.config.window_of(i)) for i in self.config.own_kv_layers]

    def __call__(self, ids: mx.array, caches: Sequence[StaticCache] | None = None, last_only: bool = False) -> mx.array:
        """ids [1, L] -> logits [1, L, V] in the weights' dtype; with last_only those of the last token, [1, 1, V]."""
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise problem("ids", got=f"shape {tuple(ids.shape)}", expected="[1, L]", cure="use Decoder for a batch")
        caches = self.make_caches() if caches is None else caches
        if ids.shape[1] == 1 and caches[0].offset > 0:
            return self.step(ids, caches)
        return self._prefill(ids[0], caches, last_only)[None]

    def step(self, ids: mx.array, caches: Sequence[StaticCache]) -> mx.array:
        """One more token after at least one other: ids [1, 1] -> logits [1, 1, V]."""
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
        """The tokens' rows [L, N*P] of the per-layer table, if there is one.

        They are read outside of the compiled step, because the table may be a file.
        """
        if self.config.hidden_size_per_layer_input == 0:
            return None
        return params.lookup(ids, self.model.embed_tokens_per_layer)

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

        A layer whose ring is full needs no mask: `rings_are_full` compiles the step a second time.
        """
        written = list(buffers)
        heads, dtype = self.config.num_attention_heads, buffers[0].dtype

        @functools.cache
        def bias_of(columns: int, kv_heads: int, window: int | None) -> mx.array:
            """The bias [1, K, H/K, S] of a buffer of this length: the window up to this token's column is seen."""
            column = mx.arange(columns)
            seen = column <= position
            if window is not None:
                seen &= column > position - window
            bias = mx.where(seen, 0.0, -mx.inf).astype(dtype)
            return mx.broadcast_to(bias, (1, kv_heads, heads // kv_heads, columns))

        @functools.cache
        def column_in_ring(columns: int) -> mx.array:
            """Which column of a ring is this token's: [S, 1] bool."""
            return (mx.arange(columns) == position % columns)[:, None]

        def attend(own: int, kv: mx.array) -> Attended:
            columns = buffers[own].shape[2]
            if rings[own]:  # a ring is short: writing all of it is one operation, writing a part of it is two
                written[own] = mx.where(column_in_ring(columns), kv, buffers[own])
            else:
                written[own] = mx.slice_update(buffers[own], kv, start_indices=position, axes=(2,))
            full = rings[own] and rings_are_full
            bias = None if full else bias_of(columns, kv.shape[1] // 2, self.config.window_of(own))
            return Attended(written[own], bias)

        h = self._all_layers(ids, rows, position, attend, last_only=False)
        return self._logits(h), written

    def _prefill(self, ids: mx.array, caches: Sequence[StaticCache], last_only: bool) -> mx.array:
        """ids [L] -> logits [L, V], or [1, V]."""
        length, offset = ids.shape[0], caches[0].offset

        def attend(own: int, kv: mx.array) -> Attended:
            attended = caches[own].extend(kv)
            bias = prefill_bias(length, attended.shape[2], self.config.window_of(own), kv.dtype)
            return Attended(attended, bias)

        return self._logits(self._all_layers(ids, self._rows(ids), mx.array(offset), attend, last_only))

    def _all_layers(
        self, ids: mx.array, rows: mx.array | None, position: mx.array, attend: _Attend, last_only: bool
    ) -> mx.array:
        """All layers: ids [L] at position, position + 1, ... -> the hidden state [L, D], or its last row [1, D].

        Layers without keys of their own write nothing that others read, so with last_only they compute one row.
        """
        config = self.config
        h = embedding.scaled_embedding(ids, self.model.embed_tokens)  # [L, D]
        per_layer = None if rows is None else self._per_layer(h, rows)
        rotations = {kind: rotation(position, h.shape[0], inv_freq) for kind, inv_freq in self._frequencies.items()}
        donors: dict[int, Attended] = {}
        for i, layer in enumerate(self.layers):
            if last_only and i == len(config.own_kv_layers):
                h, rotations = h[-1:], {kind: (cos[-1:], sin[-1:]) for kind, (cos, sin) in rotations.items()}
                per_layer = None if per_layer is None else [x[-1:] for x in per_layer]
            q, kv = layer.project(h, rotations[config.layer_types[i]])
            if kv is not None:
                donors[i] = attend(i, kv)
            h = layer.finish(h, donors[config.kv_donor(i)](q), None if per_layer is None else per_layer[i])
        return h[-1:] if last_only else h

    def _per_layer(self, h: mx.array, rows: mx.array) -> list[mx.array]:
        """`ple.per_layer_inputs`: h [L, D], rows [L, N*P] -> [L, P] for each of N layers."""
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
