"""Mistakes in the attention mask: who sees whom.

Shape letters: B batch, L query length, S key length, w the sliding window.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from reference.config import TextConfig
from reference.mutants.mutant import with_ops
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.oracle.ops import Ops

AREA = Area("masks", place=20)

_PROBS = "self_attn.probs"
_SLIDING, _FULL = "sliding layers", "full layers"


@AREA.mutant(
    "sliding-mask-not-applied",
    does="Masks sliding layers as full ones: causal, without the window.",
    symptom="Exact for prompts up to w tokens; from position w on every sliding layer drifts.",
    cure="Sliding layers see positions p-w+1 .. p, on every path: prefill, chunk and decode.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("ollama/ollama#15530", "EricLBuehler/mistral.rs#2073", "google-deepmind/gemma@09e7b48"),
    caught_by=(
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
)
class _NoWindow(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        return super().attention_mask(q_positions, k_positions, k_valid, None)


class _Resized(Ops):
    by: ClassVar[int]

    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        window = None if window is None else window + self.by
        return super().attention_mask(q_positions, k_positions, k_valid, window)


@AREA.mutant(
    "sliding-window-one-more",
    does="Counts the window without the query: w keys before it and the query itself.",
    symptom="Exact up to position w-1; after it every query of a sliding layer sees one key too many.",
    cure="The window counts the query: p-w+1 .. p, a FlashAttention window of (w-1, 0).",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("NVIDIA-NeMo/Megatron-Bridge#4683", "unslothai/unsloth-zoo@61a8e0cf"),
    caught_by=(
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
)
class _OneMore(_Resized):
    by = 1


@AREA.mutant(
    "sliding-window-one-less",
    does="Ends the window one key early: w-1 keys, the query's own included.",
    symptom="Exact up to position w-2; after it every query of a sliding layer misses its oldest key.",
    cure="The window is w keys with the query's own: p-w+1 .. p.",
    first_tap=_PROBS,
    layers=_SLIDING,
    caught_by=(
        "module/attention-core/ring",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l8/no-cache",
    ),
)
class _OneLess(_Resized):
    by = -1


@AREA.mutant(
    "sliding-window-ahead-by-one",
    does="Masks sliding layers with query positions one too high: the window is p-w+2 .. p+1.",
    symptom="In prefill sliding layers read the next token; in decoding they miss their oldest key.",
    cure="Mask with the positions that rotate the queries.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("quic/efficient-transformers#1176", "quic/efficient-transformers#1250"),
    caught_by=(
        "module/attention-core/ring",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _AheadByOne(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        queries = q_positions if window is None else q_positions + 1
        return super().attention_mask(queries, k_positions, k_valid, window)


@AREA.mutant(
    "sliding-mask-capped-keys-dropped",
    does="Builds the mask of sliding layers min(S, w) columns wide: every query of the pass loses the keys before.",
    symptom="Prompts longer than w degenerate: early queries see few keys or none.",
    cure="A pass over L tokens needs w-1+L columns: cap what the cache keeps, not what the pass sees.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("lablup/mlxcel#405",),
    caught_by=(
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
)
class _Capped(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = super().attention_mask(q_positions, k_positions, k_valid, window)  # [B, L, S]
        columns = seen.shape[-1]
        return seen if window is None else seen & (np.arange(columns) >= columns - window)


@AREA.mutant(
    "mask-slice-wrong-end",
    does="Cuts the mask of the whole history at its tail, to fit a ring of w-1+L columns that lost its head.",
    symptom="Right until the ring drops its first key; from then on masks lie over the wrong keys.",
    cure="Keep the mask's last columns, or build it from the positions of the keys in the ring.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("ml-explore/mlx-swift-lm@e48243f5",),
    caught_by=("forward/e2b-mini/uniform-l19/chunks-11",),
)
class _WrongEnd(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = super().attention_mask(q_positions, k_positions, k_valid, window)  # [B, L, S]
        if window is None:
            return seen
        dropped = max(0, seen.shape[-1] - (window - 1 + seen.shape[1]))
        return np.concatenate([np.zeros_like(seen[..., :dropped]), seen[..., : seen.shape[-1] - dropped]], axis=-1)


@AREA.mutant(
    "full-layer-dummy-mask",
    does="Takes a placeholder mask of zeros for the mask of full layers: every query sees everything.",
    symptom="Decoding is right; in prefill full layers read the future, and the first generated token is off.",
    cure="Hand the causal mask to full layers when they leave the flash kernel for E = 512.",
    first_tap=_PROBS,
    layers=_FULL,
    links=("EricLBuehler/mistral.rs#2059", "EricLBuehler/mistral.rs@23a640015"),
    caught_by=(
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _Dummy(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = super().attention_mask(q_positions, k_positions, k_valid, window)
        return np.ones_like(seen) if window is None else seen


@AREA.mutant(
    "padding-mask-replaces-causal",
    does="Where a row is padded, uses the padding mask as the whole mask: neither causal nor windowed.",
    symptom="The loss of padded batches is too good, since it reads the answers; unpadded input is right.",
    cure="And the padding mask with the causal and the sliding mask.",
    first_tap=_PROBS,
    links=("unslothai/unsloth-zoo#963", "unslothai/unsloth-zoo@c78b916e"),
    caught_by=("forward/e2b-mini/uniform-l19/padded-no-cache",),
)
class _PaddingAlone(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = super().attention_mask(q_positions, k_positions, k_valid, window)
        valid = k_valid.astype(bool)
        return seen if valid.all() else np.broadcast_to(valid[:, None, :], seen.shape)


@AREA.mutant(
    "batch-left-padding-lost",
    does="Forgets which columns are pads, so real tokens attend to them.",
    symptom="In a ragged batch the longest row is right, shorter ones differ from their single runs.",
    cure="Count each row's pads before padding makes the rows equally long.",
    first_tap=_PROBS,
    links=("Blaizzy/mlx-vlm#1542", "Blaizzy/mlx-vlm#1543"),
    caught_by=("forward/e2b-mini/uniform-l19/padded-no-cache",),
)
class _PadsAttended(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        return super().attention_mask(q_positions, k_positions, np.ones_like(k_valid), window)


@AREA.mutant(
    "left-pad-rows-nan",
    does="Gives NaN for a query that sees no key, as a pad's does.",
    symptom="Real tokens of padded rows turn NaN one layer later, through 0 * NaN at the pads' values.",
    cure="Let a query that sees nothing attend to anything, or zero its context.",
    first_tap="self_attn.context",
    layers="layers past the first",
    links=("huggingface/transformers#47651", "huggingface/transformers#47678", "unslothai/unsloth#9708"),
    caught_by=("forward/e2b-mini/uniform-l19/padded-no-cache",),
)
class _EmptyRowsNaN(Decoder):
    def attention(self, index: int, x: Array, positions: Array, valid: Array, **named: Any) -> tuple[Array, KeyValues]:
        class NoKeysForPads(Ops):
            def attention_mask(self, *args: Any) -> Array:
                return super().attention_mask(*args) & valid[:, :, None].astype(bool)  # [B, L, S]

            def softmax(self, scores: Array, mask: Array | None = None) -> Array:
                weights = super().softmax(scores, mask)
                if mask is None:
                    return weights
                return np.where(mask.any(-1, keepdims=True), weights, self.ar.scalar(float("nan"), weights))

        return Decoder.attention(with_ops(self, NoKeysForPads), index, x, positions, valid, **named)


@AREA.mutant(
    "window-on-full-layers",
    does="Applies the sliding window to full layers as well.",
    symptom="Exact for prompts up to w tokens; nothing further back is ever recalled.",
    cure="Full layers are causal without a window.",
    first_tap=_PROBS,
    layers=_FULL,
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l9/no-cache",
    ),
)
class _WindowEverywhere(TextConfig):
    def window_of(self, layer: int) -> int | None:
        return self.sliding_window


@AREA.mutant(
    "bidirectional-for-text",
    does="Takes text for image tokens: sliding layers also see the w-1 tokens after the query.",
    symptom="Token by token is right; prefill reads the future.",
    cure="Bidirectional attention is for spans of one image; text is causal.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("Blaizzy/mlx-vlm#1280", "ml-explore/mlx-swift-lm@eea29086"),
    caught_by=(
        "module/attention-core/window",
        "attention/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _Bidirectional(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = super().attention_mask(q_positions, k_positions, k_valid, window)
        if window is None:
            return seen
        ahead = k_positions[:, None, :] - q_positions[:, :, None]  # [B, L, S]
        return seen | ((ahead >= 0) & (ahead < window) & k_valid[:, None, :].astype(bool))


@AREA.mutant(
    "causal-mask-top-left",
    does="Aligns the causal mask of a pass with history to the first column: query i sees columns 0 .. i.",
    symptom="One call is right; after it every token sees the beginning of the text alone.",
    cure="Align the mask to the last column: query i of L sees columns up to S-L+i.",
    first_tap=_PROBS,
    caught_by=(
        "module/attention-core/far-apart",
        "forward/e2b-mini/uniform-l2/tokens",
    ),
)
class _TopLeft(Ops):
    def attention_mask(self, q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        if q_positions.shape == k_positions.shape:
            return super().attention_mask(q_positions, k_positions, k_valid, window)
        rows, columns = np.arange(q_positions.shape[1])[None], np.arange(k_positions.shape[1])[None]
        return super().attention_mask(rows, columns, k_valid, window)
