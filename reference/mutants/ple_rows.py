"""Mistakes in the lookup of the token rows of the per-layer embeddings (PLE).

Shape letters: B batch, L query length, D hidden, N layers, P per-layer width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KVCache
from reference.taps import Recorder, silent

AREA = Area("PLE")

_ROWS = "model.embed_tokens_per_layer"
_CONTEXT = "model.per_layer_projection_norm"


@AREA.mutant(
    "ple-layout-transposed",
    replaces="oracle.ple.token_rows",
    does="Reads a packed row of N * P channels as P x N: layer i gets every N-th channel in the place of its own run.",
    symptom="All values of the row are there, dealt out to the wrong layers.",
    cure="A row is N runs of P channels: reshape to [N, P], layers first.",
    first_tap=_ROWS,
)
def _layout_transposed(right: Function) -> Function:
    def token_rows(ids: Array, table: Array, num_layers: int, ar: Arithmetic) -> Array:
        rows = right(ids, table, num_layers, ar)  # [B, L, N, P]
        return rows.reshape(*ids.shape, -1, num_layers).swapaxes(-1, -2)  # [B, L, P, N] -> [B, L, N, P]

    return token_rows


@AREA.mutant(
    "ple-token-scale-missing",
    replaces="oracle.ple.token_rows",
    does="Leaves the token rows unscaled, without sqrt(P).",
    symptom="The token half of the PLE is sixteen times too weak at P = 256.",
    cure="embed_tokens_per_layer is a scaled embedding of its own: multiply its rows by sqrt(P).",
    first_tap=_ROWS,
    links=("huggingface/transformers#45207",),
)
def _token_scale_missing(_: Function) -> Function:
    def token_rows(ids: Array, table: Array, num_layers: int, *_: Arithmetic) -> Array:
        return table[ids].reshape(*ids.shape, num_layers, -1)

    return token_rows


@AREA.mutant(
    "ple-token-scale-packed",
    replaces="oracle.ple.token_rows",
    does="Scales the token rows by sqrt(N * P), the root of the packed width, as a plain scaled embedding would.",
    symptom="The token half of the PLE is sqrt(N) times too strong.",
    cure="Scale by sqrt(P), the width that one layer reads.",
    first_tap=_ROWS,
)
def _token_scale_packed(_: Function) -> Function:
    def token_rows(ids: Array, table: Array, num_layers: int, ar: Arithmetic) -> Array:
        rows = table[ids] * ar.scalar(math.sqrt(table.shape[-1]), table)  # [B, L, N * P]
        return rows.reshape(*ids.shape, num_layers, -1)

    return token_rows


@AREA.mutant(
    "ple-chunk-not-sliced",
    replaces="oracle.decoder.Decoder.forward",
    does="Looks up token rows for the whole prompt and gives every call the first of them, wherever the call starts.",
    symptom="One call is right; from the second chunk or decoded token on, the PLE is that of the prompt's start.",
    cure="Slice the token rows by the call's offset, or look up the call's own ids.",
    first_tap=_ROWS,
    links=("Blaizzy/mlx-vlm#901", "Blaizzy/mlx-vlm#1123", "Blaizzy/mlx-vlm#1127"),
)
def _chunk_not_sliced(right: Function) -> Function:
    def forward(
        self: Decoder,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        prompt = ids if cache is None else np.concatenate([vars(cache).get("prompt", ids[:, :0]), ids], axis=1)
        if cache is not None:
            vars(cache)["prompt"] = prompt
        with _looking_up(prompt[:, : ids.shape[1]]):
            return right(self, ids, positions, valid, cache, record)

    return forward


@AREA.mutant(
    "ple-previous-token",
    replaces="oracle.decoder.Decoder.forward",
    does="Decodes a token on what the PLE buffer still holds: the token rows of the token before.",
    symptom="Prefill is right, every decoded token reads its predecessor's PLE.",
    cure="Look the token up before the layers run, and hand the rows over by value.",
    first_tap=_ROWS,
    links=("vllm-project/tpu-inference#3406",),
)
def _previous_token(right: Function) -> Function:
    def forward(
        self: Decoder,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        rows = ids
        if cache is not None:
            rows = vars(cache).get("last", ids) if ids.shape[1] == 1 else ids
            vars(cache)["last"] = ids[:, -1:]
        with _looking_up(rows):
            return right(self, ids, positions, valid, cache, record)

    return forward


def _looking_up(ids: Array) -> AbstractContextManager[None]:
    """Token rows are those of `ids`, whatever is asked for."""
    return replaced("oracle.ple.token_rows", lambda right: lambda _, *rest: right(ids, *rest))


@AREA.mutant(
    "ple-int32-overflow",
    replaces="oracle.answers.module",
    does="Computes the offset into the packed table in 32 bits, so that it wraps at 2^31.",
    symptom="High token ids alone read far-off or unmapped memory: E2B's table has 2.35e9 entries.",
    cure="Compute gather offsets in 64 bits, or split the table by layer.",
    first_tap="offset",
    layers="module cases",
    links=("microsoft/onnxruntime#28107", "ml-explore/mlx-lm#1095", "EricLBuehler/mistral.rs@e6ff86add"),
)
def _int32_overflow(right: Function) -> Function:
    def module(kind: str, params: Mapping[str, Any], inputs: Mapping[str, Array], ar: Arithmetic) -> dict[str, Array]:
        taps = right(kind, params, inputs, ar)
        if kind != "ple_index":
            return taps
        offset = int(taps["offset"].tobytes())
        wrapped = (offset + 2**31) % 2**32 - 2**31
        return {"offset": np.frombuffer(str(wrapped).encode(), np.uint8)}

    return module
