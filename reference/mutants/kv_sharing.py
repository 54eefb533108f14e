"""Mistakes in KV sharing: whose keys and values the shared layers use, and which of them.

Shape letters: B batch, L query length (tokens of this call), S key length, K key/value heads, E head dim.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from reference.mutants.cache import Attended, QueriesAhead, last_columns
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.taps import Recorder, silent

AREA = Area("KV sharing", place=50)

_PROBS = "self_attn.probs"
_SHARED = "KV-shared layers"


class _HandedOver(Decoder):
    """Hands shared layers something else from their donor."""

    def attention(
        self,
        index: int,
        x: Array,
        *args: Any,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        **named: Any,
    ) -> Attended:
        if shared is not None:
            shared = self.handed_over(index, shared, x.shape[1], cache)
        return super().attention(index, x, *args, shared=shared, cache=cache, **named)

    def handed_over(self, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        """What layer `index` attends to in a call of `length` tokens; `shared` are its donor's keys and values."""
        raise NotImplementedError


class _OwnProjections(Decoder):
    """Lets shared layers use k/v weights of their own, where the checkpoint has any."""

    with_cache: ClassVar[bool]

    def attention(
        self,
        index: int,
        *args: Any,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Attended:
        def record_no_keys(name: str, value: Array) -> Array:
            shown = not name.endswith(("k_norm", "k_rope", "v_norm"))  # shared layers have no such taps
            return record(name, value) if shown else value

        if shared is None or not _has_own(self, index) or (cache is not None and not self.with_cache):
            return super().attention(index, *args, shared=shared, cache=cache, record=record)
        return super().attention(index, *args, shared=None, cache=cache, record=record_no_keys)


def _has_own(decoder: Decoder, index: int) -> bool:
    return f"model.layers.{index}.self_attn.k_proj.weight" in decoder.weights


@AREA.mutant(
    "kv-share-gated-on-cache",
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
    caught_by=(
        "layer/e4b-mini/full-shared-hot",
        "forward/e4b-mini/uniform-l1/no-cache",
    ),
)
class _GatedOnCache(_OwnProjections):
    with_cache = False


@AREA.mutant(
    "kv-share-own-projections",
    does="Lets shared layers use the k_proj and v_proj that the checkpoint carries for them.",
    symptom="Garbage with Google's E2B and E4B files; files without the redundant tensors do not load.",
    cure="Layers from N - num_kv_shared_layers on take their donor's; their own tensors are noise.",
    first_tap=_PROBS,
    layers=_SHARED,
    caught_by=(
        "layer/e4b-mini/full-shared-hot",
        "forward/e4b-mini/uniform-l1/no-cache",
    ),
)
class _AlwaysOwn(_OwnProjections):
    with_cache = True


@AREA.mutant(
    "shared-layer-writes-cache",
    does="Projects keys and values for shared layers too, and writes them over the donor's newest columns after use.",
    symptom="Prefill is right; every later token attends to noise in the donors' caches.",
    cure="Shared layers read the cache and never write it.",
    first_tap=_PROBS,
    layers="donor layers",
    links=("vllm-project/vllm-ascend#11791", "vllm-project/tpu-inference#3406"),
    caught_by=("forward/e4b-mini/uniform-l2/tokens",),
)
class _WritesCache(Decoder):
    def attention(
        self,
        index: int,
        x: Array,
        positions: Array,
        valid: Array,
        *,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Attended:
        answer = super().attention(index, x, positions, valid, shared=shared, cache=cache, record=record)
        if shared is not None and cache is not None and _has_own(self, index):
            new = self.keys_and_values(index, x, positions, valid, silent)
            donor = self.config.kv_donor(index)
            old = cache.layers[donor]
            cache.layers[donor] = dataclasses.replace(
                old,
                keys=np.concatenate([old.keys[:, :, : -x.shape[1]], new.keys], axis=2),
                values=np.concatenate([old.values[:, :, : -x.shape[1]], new.values], axis=2),
            )
        return answer


@AREA.mutant(
    "shared-q-offset-after-update",
    does="Rotates the queries of shared layers by the donor's offset as it is after the update: L too far.",
    symptom="One-shot prefill and token-by-token decoding disagree, and both are wrong from the first shared layer on.",
    cure="Take the offset before the donor appends, and hand it on with the keys.",
    first_tap="self_attn.q_rope",
    layers=_SHARED,
    links=("ml-explore/mlx-lm@bdbfcf71", "ml-explore/mlx-lm@72edd658"),
    caught_by=("forward/e2b-mini/uniform-l1/one-shot",),
)
class _OffsetAfterUpdate(QueriesAhead):
    def attention(
        self,
        index: int,
        x: Array,
        *args: Any,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        **named: Any,
    ) -> Attended:
        decoder = self if shared is None or cache is None else self.ahead_by(x.shape[1])
        return Decoder.attention(decoder, index, x, *args, shared=shared, cache=cache, **named)


@AREA.mutant(
    "shared-layer-current-step-kv-only",
    does="Hands shared layers the keys and values of this call's tokens alone.",
    symptom="Prefill is right; decoded text drifts into garbage.",
    cure="Hand over what the donor attended to: history and new tokens.",
    first_tap=_PROBS,
    layers=_SHARED,
    caught_by=("forward/e2b-mini/uniform-l2/tokens",),
)
class _CurrentStep(_HandedOver):
    def handed_over(self, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        return shared if cache is None else last_columns(shared, length)


@AREA.mutant(
    "rotating-donor-truncated-kv",
    does="Lets shared sliding layers read the donor's ring as it is after the call, trimmed to the last w-1 columns.",
    symptom="Exact up to w-1 tokens; past them shared sliding layers lose keys, and early queries all of them.",
    cure="Hand over what the donor attended to: the columns kept and all new ones.",
    first_tap=_PROBS,
    layers="KV-shared sliding layers",
    links=("EricLBuehler/mistral.rs#2091", "ollama/ollama#15617", "ollama/ollama#15607"),
    caught_by=("forward/e2b-mini/uniform-l8/one-shot",),
)
class _Truncated(_HandedOver):
    def handed_over(self, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        if cache is None or not self.config.is_sliding(index):
            return shared
        return last_columns(shared, self.config.sliding_window - 1)


@AREA.mutant(
    "shared-keys-rotated-again",
    does="Rotates the donor's keys once more in every shared layer.",
    symptom="Own-KV layers are right; shared layers see keys at twice their distance from the start.",
    cure="The donor's keys are rotated already: shared layers rotate queries alone.",
    first_tap=_PROBS,
    layers=_SHARED,
    caught_by=(
        "attention/e2b-mini/full-shared-hot",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _RotatedAgain(_HandedOver):
    def handed_over(self, index: int, shared: KeyValues, length: int, cache: KVCache | None) -> KeyValues:
        frequencies = self.frequencies[self.config.layer_types[index]]
        return dataclasses.replace(shared, keys=self.ops.rope(shared.keys, shared.positions, frequencies))
