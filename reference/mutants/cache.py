"""Mistakes of the KV cache and of decoding: what a call remembers, and where it believes to stand.

Shape letters: B batch, L query length (tokens of this call), S key length, E head dim, w the sliding window.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np

from reference.mutants.mutant import with_ops
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.oracle.ops import Ops
from reference.taps import Recorder, silent

AREA = Area("cache and decoding", place=70)

_K_READ, _PROBS, _Q_ROPE = "self_attn.k_read", "self_attn.probs", "self_attn.q_rope"

Attended = tuple[Array, KeyValues]
"""What `Decoder.attention` returns."""


def last_columns(kv: KeyValues, count: int) -> KeyValues:
    """The newest `count` columns of S, or all where there are fewer."""
    start = max(0, kv.keys.shape[2] - count)
    return KeyValues(
        keys=kv.keys[:, :, start:],
        values=kv.values[:, :, start:],
        positions=kv.positions[:, start:],
        valid=kv.valid[:, start:],
    )


class QueriesAhead(Decoder):
    """Can rotate its queries too far."""

    _ahead = 0

    def ahead_by(self, positions: int) -> Self:
        """This decoder, with its queries that many positions ahead."""
        other = copy.copy(self)
        other._ahead = positions
        return other

    def queries(self, index: int, x: Array, positions: Array, tap: Recorder) -> Array:
        return super().queries(index, x, positions + self._ahead, tap)


class _FromZero(Ops):
    def rope(self, x: Array, positions: Array, frequencies: Array) -> Array:
        return super().rope(x, positions - positions[:, :1], frequencies)


@AREA.mutant(
    "positions-restart-per-call",
    does="Rotates queries and keys by their place in the call: every call counts from 0.",
    symptom="One-shot prefill is right; decoding loses all sense of order at its first token.",
    cure="RoPE positions go on from the cache's length before the call.",
    first_tap=_Q_ROPE,
    caught_by=("forward/e2b-mini/uniform-l2/tokens",),
)
class _Restart(Decoder):
    def attention(self, *args: Any, cache: KVCache | None = None, **named: Any) -> Attended:
        decoder = self if cache is None else with_ops(self, _FromZero)
        return Decoder.attention(decoder, *args, cache=cache, **named)


@AREA.mutant(
    "offset-alias-mutation",
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
    caught_by=("forward/e2b-mini/uniform-l19/padded-mixed",),
)
class _Alias(QueriesAhead):
    def attention(self, index: int, x: Array, *args: Any, cache: KVCache | None = None, **named: Any) -> Attended:
        batched_decoding = cache is not None and x.shape[0] > 1 and x.shape[1] == 1
        decoder = self.ahead_by(1) if batched_decoding else self
        return Decoder.attention(decoder, index, x, *args, cache=cache, **named)


class _BySlot(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        if window is not None and k_positions.shape[1] > window:
            k_positions = k_positions % window
        return super().attention_mask(q_positions, k_positions, k_valid, window)


@AREA.mutant(
    "physical-window-position",
    does="Once a sliding layer's ring has wrapped, takes a key's slot, position mod w, for its position in the mask.",
    symptom="Exact up to w tokens; past the window keys vanish, and text repeats without end.",
    cure="Mask by the positions of the keys in the slots, not by slot numbers.",
    first_tap=_PROBS,
    layers="sliding layers",
    links=("quic/efficient-transformers#1235",),
    caught_by=("forward/e2b-mini/uniform-l9/one-shot",),
)
class _Slots(Decoder):
    def attention(self, *args: Any, cache: KVCache | None = None, **named: Any) -> Attended:
        decoder = self if cache is None else with_ops(self, _BySlot)
        return Decoder.attention(decoder, *args, cache=cache, **named)


class _OneKeyLess(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        window = None if window is None else window - 1
        return super().attention_mask(q_positions, k_positions, k_valid, window)


@AREA.mutant(
    "rotating-cache-evicts-early",
    does="Writes a decoded token over a key that its query should still see: single steps see w-1 keys.",
    symptom="Prefill is right; decoding past the window misses the oldest key of every sliding layer.",
    cure="A ring of w slots holds the w-1 keys before the query and the query's own.",
    first_tap=_PROBS,
    layers="sliding layers",
    caught_by=("forward/e2b-mini/uniform-l19/padded-mixed",),
)
class _EvictsEarly(Decoder):
    def attention(self, index: int, x: Array, *args: Any, cache: KVCache | None = None, **named: Any) -> Attended:
        decoder = self if cache is None or x.shape[1] > 1 else with_ops(self, _OneKeyLess)
        return Decoder.attention(decoder, index, x, *args, cache=cache, **named)


@AREA.mutant(
    "rotating-chunk-truncated",
    does="Trims a sliding layer's keys to w columns before a chunk attends to them.",
    symptom="Token by token is right; a chunk's early queries lose keys, all of them in a chunk longer than w.",
    cure="Attend to w-1 old columns and all L new ones, then trim.",
    first_tap=_K_READ,
    layers="own-KV sliding layers",
    caught_by=("forward/e2b-mini/uniform-l9/one-shot",),
)
class _ChunkTruncated(Decoder):
    def history(self, index: int, new: KeyValues, cache: KVCache | None) -> KeyValues:
        kept = super().history(index, new, cache)
        if cache is None or new.keys.shape[2] == 1 or not self.config.is_sliding(index):
            return kept
        return last_columns(kept, self.config.sliding_window)


@AREA.mutant(
    "full-cache-rotates",
    does="Gives full layers a rotating cache as well: they keep the last w-1 columns between calls.",
    symptom="One-shot prefill is right; in decoding nothing further back than the window is recalled.",
    cure="Full layers keep every column; only sliding layers' caches rotate.",
    first_tap=_K_READ,
    layers="full layers",
    caught_by=("forward/e2b-mini/uniform-l19/chunks-11",),
)
class _FullRotates(Decoder):
    def history(self, index: int, new: KeyValues, cache: KVCache | None) -> KeyValues:
        kept = super().history(index, new, cache)
        if cache is None or self.config.is_sliding(index):
            return kept
        return last_columns(kept, self.config.sliding_window - 1 + new.keys.shape[2])


@AREA.mutant(
    "cache-not-carried",
    does="Attends to the tokens of the call alone: the cache is written and never read, or made anew for every call.",
    symptom="Prefill is right; decoding forgets the prompt.",
    cure="Carry the cache from call to call, and attend to what update returns.",
    first_tap=_K_READ,
    caught_by=("forward/e2b-mini/uniform-l2/tokens",),
)
class _NotCarried(Decoder):
    def history(self, index: int, new: KeyValues, cache: KVCache | None) -> KeyValues:
        super().history(index, new, cache)
        return new


@AREA.mutant(
    "cache-first-token-lost",
    does="Writes the second call's first token over column 0 of full layers' caches.",
    symptom="The first token, usually <bos>, is gone after prefill, and with it the sink of attention.",
    cure="Append at the cache's length.",
    first_tap=_K_READ,
    layers="full layers",
    caught_by=("forward/e2b-mini/uniform-l2/tokens",),
)
class _FirstLost(Decoder):
    def history(self, index: int, new: KeyValues, cache: KVCache | None) -> KeyValues:
        kept = super().history(index, new, cache)
        columns = kept.keys.shape[2]
        if self.config.is_sliding(index) or columns == new.keys.shape[2]:
            return kept
        # Keys are masked by position, wherever they lie: overwritten is the same as gone.
        return last_columns(kept, columns - 1)


@AREA.mutant(
    "pads-counted-as-positions",
    does="Counts a row's left pads as positions: RoPE starts after them.",
    symptom="Text is right, for RoPE is relative; padded rows' queries and keys differ from their single runs', and "
    "cached prefixes do not fit other paddings.",
    cure="Positions of a row are its column less its pads.",
    first_tap=_Q_ROPE,
    caught_by=("forward/e2b-mini/uniform-l19/padded-no-cache",),
)
class _PadsCounted(Decoder):
    def forward(
        self,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        if valid is not None:
            start = cache.layers[0].keys.shape[2] if cache is not None and cache.layers else 0
            columns = np.arange(start, start + ids.shape[1], dtype=positions.dtype)
            positions = np.broadcast_to(columns, positions.shape)
        return super().forward(ids, positions, valid, cache, record)
