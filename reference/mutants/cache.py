"""Mistakes of the KV cache and of decoding: what a call remembers, and where it believes to stand.

Shape letters: B batch, L query length (tokens of this call), S key length, E head dim, w the sliding window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.taps import Recorder, silent

AREA = Area("cache and decoding")

_ATTENTION = "oracle.decoder.Decoder.attention"
_MASK = "oracle.attention.attention_mask"
_UPDATE = "oracle.kv_cache.KVCache.update"
_PROBS, _Q_ROPE = "self_attn.probs", "self_attn.q_rope"


def last_columns(kv: KeyValues, count: int) -> KeyValues:
    """The newest `count` columns of S, or all where there are fewer."""
    start = max(0, kv.keys.shape[2] - count)
    return KeyValues(
        keys=kv.keys[:, :, start:],
        values=kv.values[:, :, start:],
        positions=kv.positions[:, start:],
        valid=kv.valid[:, start:],
    )


@AREA.mutant(
    "positions-restart-per-call",
    replaces=_ATTENTION,
    does="Rotates queries and keys by their place in the call: every call counts from 0.",
    symptom="One-shot prefill is right; decoding loses all sense of order at its first token.",
    cure="RoPE positions go on from the cache's length before the call.",
    first_tap=_Q_ROPE,
)
def _restart(right: Function) -> Function:
    def from_zero(right_rotate: Function) -> Function:
        def rotate(x: Array, positions: Array, frequencies: Array) -> Array:
            return right_rotate(x, positions - positions[:, :1], frequencies)

        return rotate

    def attention(self: Decoder, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None:
            return right(self, *args, cache=cache, **named)
        with replaced("oracle.rope.rotate", from_zero):
            return right(self, *args, cache=cache, **named)

    return attention


@AREA.mutant(
    "offset-alias-mutation",
    replaces=_ATTENTION,
    does="In batched decoding, reads the offset for the queries from an array that the cache's update has advanced.",
    symptom="Batches repeat themselves after a few tokens; a single sequence, with an int for its offset, is right.",
    cure="Copy the offset before the update: q and k of a token rotate by one angle.",
    first_tap=_Q_ROPE,
    links=(
        "Blaizzy/mlx-vlm#966",
        "Blaizzy/mlx-vlm@0b1a1a35",
        "ml-explore/mlx-lm@8223f6d8",
        "ml-explore/mlx-lm#1699",
    ),
)
def _alias(right: Function) -> Function:
    def attention(self: Decoder, index: int, x: Array, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None or x.shape[0] == 1 or x.shape[1] > 1:
            return right(self, index, x, *args, cache=cache, **named)
        with replaced("oracle.decoder.Decoder._queries", lambda queries: queries_ahead(queries, 1)):
            return right(self, index, x, *args, cache=cache, **named)

    return attention


def queries_ahead(right: Function, by: int) -> Function:
    """`Decoder._queries` rotating `by` positions too far."""

    def queries(self: Decoder, index: int, x: Array, positions: Array, tap: Recorder) -> Array:
        return right(self, index, x, positions + by, tap)

    return queries


@AREA.mutant(
    "physical-window-position",
    replaces=_ATTENTION,
    does="Once a sliding layer's ring has wrapped, takes a key's slot, position mod w, for its position in the mask.",
    symptom="Exact up to w tokens; past the window keys vanish, and text repeats without end.",
    cure="Mask by the positions of the keys in the slots, not by slot numbers.",
    first_tap=_PROBS,
    layers="sliding layers",
    links=("quic/efficient-transformers#1235",),
)
def _slots(right: Function) -> Function:
    def by_slot(right_mask: Function) -> Function:
        def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
            if window is None or k_positions.shape[1] <= window:
                return right_mask(q_positions, k_positions, k_valid, window)
            return right_mask(q_positions, k_positions % window, k_valid, window)

        return attention_mask

    def attention(self: Decoder, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None:
            return right(self, *args, cache=cache, **named)
        with replaced(_MASK, by_slot):
            return right(self, *args, cache=cache, **named)

    return attention


@AREA.mutant(
    "rotating-cache-evicts-early",
    replaces=_ATTENTION,
    does="Writes a decoded token over a key that its query should still see: single steps see w-1 keys.",
    symptom="Prefill is right; decoding past the window misses the oldest key of every sliding layer.",
    cure="A ring of w slots holds the w-1 keys before the query and the query's own.",
    first_tap=_PROBS,
    layers="sliding layers",
)
def _evicts_early(right: Function) -> Function:
    def one_less(right_mask: Function) -> Function:
        def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
            return right_mask(q_positions, k_positions, k_valid, None if window is None else window - 1)

        return attention_mask

    def attention(self: Decoder, index: int, x: Array, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None or x.shape[1] > 1:
            return right(self, index, x, *args, cache=cache, **named)
        with replaced(_MASK, one_less):
            return right(self, index, x, *args, cache=cache, **named)

    return attention


@AREA.mutant(
    "rotating-chunk-truncated",
    replaces=_ATTENTION,
    does="Trims a sliding layer's keys to w columns before a chunk attends to them.",
    symptom="Token by token is right; a chunk's early queries lose keys, all of them in a chunk longer than w.",
    cure="Attend to w-1 old columns and all L new ones, then trim.",
    first_tap=_PROBS,
    layers="own-KV sliding layers",
)
def _chunk_truncated(right: Function) -> Function:
    def attention(self: Decoder, index: int, x: Array, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None or x.shape[1] == 1 or not self.config.is_sliding(index):
            return right(self, index, x, *args, cache=cache, **named)
        with replaced(_UPDATE, lambda update: _newest_of(update, self.config.sliding_window)):
            return right(self, index, x, *args, cache=cache, **named)

    return attention


@AREA.mutant(
    "full-cache-rotates",
    replaces=_ATTENTION,
    does="Gives full layers a rotating cache as well: they keep the last w-1 columns between calls.",
    symptom="One-shot prefill is right; in decoding nothing further back than the window is recalled.",
    cure="Full layers keep every column; only sliding layers' caches rotate.",
    first_tap=_PROBS,
    layers="full layers",
)
def _full_rotates(right: Function) -> Function:
    def attention(self: Decoder, index: int, x: Array, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None or self.config.is_sliding(index):
            return right(self, index, x, *args, cache=cache, **named)
        with replaced(_UPDATE, lambda update: _newest_of(update, self.config.sliding_window - 1 + x.shape[1])):
            return right(self, index, x, *args, cache=cache, **named)

    return attention


def _newest_of(right: Function, count: int) -> Function:
    """`KVCache.update` answering with the newest columns alone."""

    def update(self: KVCache, layer: int, new: KeyValues) -> KeyValues:
        return last_columns(right(self, layer, new), count)

    return update


@AREA.mutant(
    "cache-not-carried",
    replaces=_UPDATE,
    does="Attends to the tokens of the call alone: the cache is written and never read, or made anew for every call.",
    symptom="Prefill is right; decoding forgets the prompt.",
    cure="Carry the cache from call to call, and attend to what update returns.",
    first_tap=_PROBS,
)
def _not_carried(right: Function) -> Function:
    def update(self: KVCache, layer: int, new: KeyValues) -> KeyValues:
        right(self, layer, new)
        return new

    return update


@AREA.mutant(
    "cache-first-token-lost",
    replaces=_ATTENTION,
    does="Writes the second call's first token over column 0 of full layers' caches.",
    symptom="The first token, usually <bos>, is gone after prefill, and with it the sink of attention.",
    cure="Append at the cache's length.",
    first_tap=_PROBS,
    layers="full layers",
)
def _first_lost(right: Function) -> Function:
    def overwritten(right_update: Function) -> Function:
        def update(self: KVCache, layer: int, new: KeyValues) -> KeyValues:
            kept: KeyValues = right_update(self, layer, new)
            columns = kept.keys.shape[2]
            # Keys are masked by position, wherever they lie: overwritten is the same as gone.
            return kept if columns == new.keys.shape[2] else last_columns(kept, columns - 1)

        return update

    def attention(self: Decoder, index: int, *args: Any, cache: KVCache | None = None, **named: Any) -> Any:
        if cache is None or self.config.is_sliding(index):
            return right(self, index, *args, cache=cache, **named)
        with replaced(_UPDATE, overwritten):
            return right(self, index, *args, cache=cache, **named)

    return attention


@AREA.mutant(
    "pads-counted-as-positions",
    replaces="oracle.decoder.Decoder.forward",
    does="Counts a row's left pads as positions: RoPE starts behind them.",
    symptom="Text is right, for RoPE is relative; padded rows' queries and keys differ from their single runs', and "
    "cached prefixes do not fit other paddings.",
    cure="Positions of a row are its column less its pads.",
    first_tap=_Q_ROPE,
)
def _pads_counted(right: Function) -> Function:
    def forward(
        self: Decoder,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        if valid is None:
            return right(self, ids, positions, valid, cache, record)
        state: dict[str, Any] = {} if cache is None else vars(cache)
        start = state.get("columns", 0)
        state["columns"] = start + ids.shape[1]
        columns = np.broadcast_to(np.arange(start, state["columns"], dtype=positions.dtype), positions.shape)
        return right(self, ids, columns, valid, cache, record)

    return forward
