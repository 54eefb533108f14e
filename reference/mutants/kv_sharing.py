"""Mistakes in KV sharing: whose keys and values the shared layers use, and which of them.

Shape letters: B batch, L query length (tokens of this call), S key length, K key/value heads, E head dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from reference.mutants.cache import last_columns, queries_ahead
from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle import rope
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.taps import Recorder, silent

AREA = Area("KV sharing")

_ATTENTION = "oracle.decoder.Decoder.attention"
_PROBS = "self_attn.probs"
_SHARED = "KV-shared layers"


Change = Callable[[Decoder, int, KeyValues, int, KVCache | None], KeyValues]
"""Decoder, layer, the donor's keys and values, L, the cache -> what the shared layer attends to."""


def _handed_over(right: Function, change: Change) -> Function:
    """`Decoder.attention` whose shared layers get something else from their donor."""

    def attention(
        self: Decoder,
        index: int,
        x: Array,
        *args: Any,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Any:
        if shared is not None:
            shared = change(self, index, shared, x.shape[1], cache)
        return right(self, index, x, *args, shared=shared, cache=cache, record=record)

    return attention


@AREA.mutant(
    "kv-share-gated-on-cache",
    replaces=_ATTENTION,
    does="Shares keys and values through the cache: without one, shared layers project their own by untrained weights.",
    symptom="Generation is right; training and scoring without a cache have twice the loss.",
    cure="Hand the donor's keys and values on within the pass, cache or not.",
    first_tap=_PROBS,
    layers=_SHARED,
    links=(
        "huggingface/transformers#45242",
        "huggingface/transformers#45312",
        "ml-explore/mlx-swift-lm#333",
        "unslothai/unsloth-zoo#813",
    ),
)
def _gated_on_cache(right: Function) -> Function:
    return _own_projections(right, with_cache=False)


@AREA.mutant(
    "kv-share-own-projections",
    replaces=_ATTENTION,
    does="Lets shared layers use the k_proj and v_proj that the checkpoint carries for them.",
    symptom="Garbage with Google's E2B and E4B files; files without the redundant tensors do not load.",
    cure="Layers from N - num_kv_shared_layers on take their donor's; their own tensors are noise.",
    first_tap=_PROBS,
    layers=_SHARED,
)
def _always_own(right: Function) -> Function:
    return _own_projections(right, with_cache=True)


def _own_projections(right: Function, *, with_cache: bool) -> Function:
    def attention(
        self: Decoder,
        index: int,
        *args: Any,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Any:
        def record_no_keys(name: str, value: Array) -> None:
            if not name.endswith(("k_norm", "k_rope", "v_norm")):  # shared layers have no such taps
                record(name, value)

        if shared is None or not _has_own(self, index) or (cache is not None and not with_cache):
            return right(self, index, *args, shared=shared, cache=cache, record=record)
        return right(self, index, *args, shared=None, cache=cache, record=record_no_keys)

    return attention


def _has_own(decoder: Decoder, index: int) -> bool:
    return f"model.layers.{index}.self_attn.k_proj.weight" in decoder.weights


@AREA.mutant(
    "shared-layer-writes-cache",
    replaces=_ATTENTION,
    does="Projects keys and values for shared layers too, and writes them over the donor's newest columns after use.",
    symptom="Prefill is right; every later token attends to noise in the donors' caches.",
    cure="Shared layers read the cache and never write it.",
    first_tap=_PROBS,
    layers="donor layers",
    links=("vllm-project/vllm-ascend#11791", "vllm-project/tpu-inference#3406"),
)
def _writes_cache(right: Function) -> Function:
    def attention(
        self: Decoder,
        index: int,
        x: Array,
        positions: Array,
        valid: Array,
        *,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Any:
        answer = right(self, index, x, positions, valid, shared=shared, cache=cache, record=record)
        if shared is not None and cache is not None and _has_own(self, index):
            new = self._keys_and_values(index, x, positions, valid, silent)
            donor = self.config.kv_donor(index)
            old: KeyValues = vars(cache)["_layers"][donor]
            vars(cache)["_layers"][donor] = dataclasses.replace(
                old,
                keys=np.concatenate([old.keys[:, :, : -x.shape[1]], new.keys], axis=2),
                values=np.concatenate([old.values[:, :, : -x.shape[1]], new.values], axis=2),
            )
        return answer

    return attention


@AREA.mutant(
    "shared-q-offset-after-update",
    replaces=_ATTENTION,
    does="Rotates the queries of shared layers by the donor's offset as it is after the update: L too far.",
    symptom="One-shot prefill and token-by-token decoding disagree, and both are wrong from the first shared layer on.",
    cure="Take the offset before the donor appends, and hand it on with the keys.",
    first_tap="self_attn.q_rope",
    layers=_SHARED,
    links=("ml-explore/mlx-lm@bdbfcf71", "ml-explore/mlx-lm@72edd658"),
)
def _offset_after_update(right: Function) -> Function:
    def attention(
        self: Decoder,
        index: int,
        x: Array,
        *args: Any,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Any:
        if shared is None or cache is None:
            return right(self, index, x, *args, shared=shared, cache=cache, record=record)
        with replaced("oracle.decoder.Decoder._queries", lambda queries: queries_ahead(queries, x.shape[1])):
            return right(self, index, x, *args, shared=shared, cache=cache, record=record)

    return attention


@AREA.mutant(
    "shared-layer-current-step-kv-only",
    replaces=_ATTENTION,
    does="Hands shared layers the keys and values of this call's tokens alone.",
    symptom="Prefill is right; decoded text drifts into garbage.",
    cure="Hand over what the donor attended to: history and new tokens.",
    first_tap=_PROBS,
    layers=_SHARED,
)
def _current_step(right: Function) -> Function:
    def change(decoder: Decoder, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        del decoder, index
        return shared if cache is None else last_columns(shared, length)

    return _handed_over(right, change)


@AREA.mutant(
    "rotating-donor-truncated-kv",
    replaces=_ATTENTION,
    does="Lets shared sliding layers read the donor's ring as it is after the call, trimmed to the last w-1 columns.",
    symptom="Exact up to w-1 tokens; past them shared sliding layers lose keys, and early queries all of them.",
    cure="Hand over what the donor attended to: the columns kept and all new ones.",
    first_tap=_PROBS,
    layers="KV-shared sliding layers",
    links=("EricLBuehler/mistral.rs#2091", "ollama/ollama#15617", "ollama/ollama#15607"),
)
def _truncated(right: Function) -> Function:
    def change(decoder: Decoder, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        del length
        if cache is None or not decoder.config.is_sliding(index):
            return shared
        return last_columns(shared, decoder.config.sliding_window - 1)

    return _handed_over(right, change)


@AREA.mutant(
    "shared-keys-rotated-again",
    replaces=_ATTENTION,
    does="Rotates the donor's keys once more in every shared layer.",
    symptom="Own-KV layers are right; shared layers see keys at twice their distance from the start.",
    cure="The donor's keys are rotated already: shared layers rotate queries alone.",
    first_tap=_PROBS,
    layers=_SHARED,
)
def _rotated_again(right: Function) -> Function:
    def change(decoder: Decoder, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        del length, cache
        frequencies = decoder.frequencies[decoder.config.layer_types[index]]
        return dataclasses.replace(shared, keys=rope.rotate(shared.keys, shared.positions, frequencies))

    return _handed_over(right, change)
