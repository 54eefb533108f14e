"""Mistakes in the lookup of the token rows of the per-layer embeddings (PLE).

Shape letters: B batch, L query length, D hidden, N layers, P per-layer width.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np

from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KVCache
from reference.oracle.ops import Ops
from reference.taps import Recorder, silent

AREA = Area("PLE", place=80)

_ROWS = "model.embed_tokens_per_layer"


class _OtherRows(Decoder):
    """Can look up the token rows of other ids than it is given; remembers ids from call to call, by their cache."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.earlier: WeakKeyDictionary[KVCache, Array] = WeakKeyDictionary()
        self._ids: Array | None = None

    def looking_up(self, ids: Array) -> Self:
        """This decoder with the token rows of these ids, whatever is asked for."""
        other = copy.copy(self)
        other._ids = ids
        return other

    def per_layer_inputs(self, ids: Array, h: Array, record: Recorder) -> Array:
        return super().per_layer_inputs(ids if self._ids is None else self._ids, h, record)


@AREA.mutant(
    "ple-layout-transposed",
    does="Reads a packed row of N * P channels as P x N: layer i gets every N-th channel instead of its own run.",
    symptom="All values of the row are there, dealt out to the wrong layers.",
    cure="A row is N runs of P channels: reshape to [N, P], layers first.",
    first_tap=_ROWS,
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _LayoutTransposed(Ops):
    def token_rows(self, ids: Array, table: Array, num_layers: int) -> Array:
        rows = super().token_rows(ids, table, num_layers)  # [B, L, N, P]
        return rows.reshape(*ids.shape, -1, num_layers).swapaxes(-1, -2)  # [B, L, P, N] -> [B, L, N, P]


@AREA.mutant(
    "ple-token-scale-missing",
    does="Leaves the token rows unscaled, without sqrt(P).",
    symptom="The token half of the PLE is sixteen times too weak at P = 256.",
    cure="embed_tokens_per_layer is a scaled embedding of its own: multiply its rows by sqrt(P).",
    first_tap=_ROWS,
    links=("huggingface/transformers#45207",),
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _TokenScaleMissing(Ops):
    def token_rows(self, ids: Array, table: Array, num_layers: int) -> Array:
        return table[ids].reshape(*ids.shape, num_layers, -1)


@AREA.mutant(
    "ple-token-scale-packed",
    does="Scales the token rows by sqrt(N * P), the root of the packed width, as a plain scaled embedding would.",
    symptom="The token half of the PLE is sqrt(N) times too strong.",
    cure="Scale by sqrt(P), the width that one layer reads.",
    first_tap=_ROWS,
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _TokenScalePacked(Ops):
    def token_rows(self, ids: Array, table: Array, num_layers: int) -> Array:
        rows = table[ids] * self.ar.scalar(math.sqrt(table.shape[-1]), table)  # [B, L, N * P]
        return rows.reshape(*ids.shape, num_layers, -1)


@AREA.mutant(
    "ple-chunk-not-sliced",
    does="Looks up token rows for the whole prompt and gives every call the first of them, wherever the call starts.",
    symptom="One call is right; from the second chunk or decoded token on, the PLE is that of the prompt's start.",
    cure="Slice the token rows by the call's offset, or look up the call's own ids.",
    first_tap=_ROWS,
    links=("Blaizzy/mlx-vlm#901", "Blaizzy/mlx-vlm#1123", "Blaizzy/mlx-vlm#1127"),
    caught_by=("forward/e2b-mini/uniform-l2/tokens",),
)
class _ChunkNotSliced(_OtherRows):
    def forward(
        self,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        prompt = ids
        if cache is not None:
            prompt = np.concatenate([self.earlier.get(cache, ids[:, :0]), ids], axis=1)
            self.earlier[cache] = prompt
        decoder = self.looking_up(prompt[:, : ids.shape[1]])
        return Decoder.forward(decoder, ids, positions, valid, cache, record)


@AREA.mutant(
    "ple-previous-token",
    does="Decodes a token on what the PLE buffer still holds: the token rows of the token before.",
    symptom="Prefill is right, every decoded token reads its predecessor's PLE.",
    cure="Look the token up before the layers run, and hand the rows over by value.",
    first_tap=_ROWS,
    links=("vllm-project/tpu-inference#3406",),
    caught_by=("forward/e2b-mini/uniform-l2/tokens",),
)
class _PreviousToken(_OtherRows):
    def forward(
        self,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        rows = ids
        if cache is not None:
            rows = self.earlier.get(cache, ids) if ids.shape[1] == 1 else ids
            self.earlier[cache] = ids[:, -1:]
        return Decoder.forward(self.looking_up(rows), ids, positions, valid, cache, record)


@AREA.mutant(
    "ple-int32-overflow",
    does="Computes the offset into the packed table in 32 bits, so that it wraps at 2^31.",
    symptom="High token ids alone read far-off or unmapped memory: E2B's table has 2.35e9 entries.",
    cure="Compute gather offsets in 64 bits, or split the table by layer.",
    first_tap="offset",
    layers="module cases",
    links=("microsoft/onnxruntime#28107", "ml-explore/mlx-lm#1095", "EricLBuehler/mistral.rs@e6ff86add"),
    caught_by=("module/ple-index/past-int32",),
)
class _Int32Overflow(Ops):
    def ple_index(self, token: int, layer: int, channel: int, num_layers: int, width: int) -> int:
        offset = super().ple_index(token, layer, channel, num_layers, width)
        return (offset + 2**31) % 2**32 - 2**31


@AREA.mutant(
    "ple-rows-of-pad",
    does="Looks up the pad's row for every token, as a path does that gets embeddings and keeps no ids.",
    symptom="Text degrades on E2B and E4B alone, and every token gets the same rows.",
    cure="Hand the ids to the PLE lookup, whatever the embeddings come from.",
    first_tap="model.embed_tokens_per_layer",
    caught_by=(
        "module/ple/three-layers",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _RowsOfPad(Ops):
    def token_rows(self, ids: Array, table: Array, num_layers: int) -> Array:
        return super().token_rows(ids * 0, table, num_layers)
