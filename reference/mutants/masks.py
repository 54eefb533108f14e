"""Mistakes in the attention mask: who sees whom.

Shape letters: B batch, L query length, S key length, w the sliding window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.config import TextConfig
from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder

AREA = Area("masks")

_MASK = "oracle.attention.attention_mask"
_PROBS = "self_attn.probs"
_SLIDING, _FULL = "sliding layers", "full layers"


@AREA.mutant(
    "sliding-mask-not-applied",
    replaces=_MASK,
    does="Masks sliding layers as full ones: causal, without the window.",
    symptom="Exact for prompts up to w tokens; from position w on every sliding layer drifts.",
    cure="Sliding layers see positions p-w+1 .. p, on every path: prefill, chunk and decode.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("ollama/ollama#15530", "EricLBuehler/mistral.rs#2073", "google-deepmind/gemma@09e7b48"),
)
def _no_window(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        del window
        return right(q_positions, k_positions, k_valid, None)

    return attention_mask


@AREA.mutant(
    "sliding-window-one-more",
    replaces=_MASK,
    does="Counts the window without the query: w keys before it and the query itself.",
    symptom="Exact up to position w-1; behind it every query of a sliding layer sees one key too many.",
    cure="The window counts the query: p-w+1 .. p, a FlashAttention window of (w-1, 0).",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("NVIDIA-NeMo/Megatron-Bridge#4683", "unslothai/unsloth-zoo@61a8e0cf"),
)
def _one_more(right: Function) -> Function:
    return _resized(right, 1)


@AREA.mutant(
    "sliding-window-one-less",
    replaces=_MASK,
    does="Ends the window one key early: w-1 keys, the query's own included.",
    symptom="Exact up to position w-2; behind it every query of a sliding layer misses its oldest key.",
    cure="The window is w keys with the query's own: p-w+1 .. p.",
    first_tap=_PROBS,
    layers=_SLIDING,
)
def _one_less(right: Function) -> Function:
    return _resized(right, -1)


def _resized(right: Function, by: int) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        return right(q_positions, k_positions, k_valid, None if window is None else window + by)

    return attention_mask


@AREA.mutant(
    "sliding-window-ahead-by-one",
    replaces=_MASK,
    does="Masks sliding layers with query positions one too high: the window is p-w+2 .. p+1.",
    symptom="In prefill sliding layers read the next token; in decoding they miss their oldest key.",
    cure="Mask with the positions that rotate the queries.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("quic/efficient-transformers#1176", "quic/efficient-transformers#1250"),
)
def _ahead_by_one(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        return right(q_positions if window is None else q_positions + 1, k_positions, k_valid, window)

    return attention_mask


@AREA.mutant(
    "sliding-mask-capped-keys-dropped",
    replaces=_MASK,
    does="Builds the mask of sliding layers min(S, w) columns wide: every query of the pass loses the keys before.",
    symptom="Prompts longer than w degenerate: early queries see few keys or none.",
    cure="A pass over L tokens needs w-1+L columns: cap what the cache keeps, not what the pass sees.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("lablup/mlxcel#405",),
)
def _capped(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = right(q_positions, k_positions, k_valid, window)  # [B, L, S]
        columns = seen.shape[-1]
        return seen if window is None else seen & (np.arange(columns) >= columns - window)

    return attention_mask


@AREA.mutant(
    "mask-slice-wrong-end",
    replaces=_MASK,
    does="Cuts the mask of the whole history at its tail, to fit a ring of w-1+L columns that lost its head.",
    symptom="Right until the ring drops its first key; from then on masks lie over the wrong keys.",
    cure="Keep the mask's last columns, or build it from the positions of the keys in the ring.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("ml-explore/mlx-swift-lm@e48243f5",),
)
def _wrong_end(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen = right(q_positions, k_positions, k_valid, window)  # [B, L, S]
        if window is None:
            return seen
        dropped = max(0, seen.shape[-1] - (window - 1 + seen.shape[1]))
        return np.concatenate([np.zeros_like(seen[..., :dropped]), seen[..., : seen.shape[-1] - dropped]], axis=-1)

    return attention_mask


@AREA.mutant(
    "full-layer-dummy-mask",
    replaces=_MASK,
    does="Takes a placeholder mask of zeros for the mask of full layers: every query sees everything.",
    symptom="Decoding is right; in prefill full layers read the future, and the first generated token is off.",
    cure="Hand the causal mask to full layers when they leave the flash kernel for E = 512.",
    first_tap=_PROBS,
    layers=_FULL,
    links=("EricLBuehler/mistral.rs#2059", "EricLBuehler/mistral.rs@23a640015"),
)
def _dummy(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen: Array = right(q_positions, k_positions, k_valid, window)
        return np.ones_like(seen) if window is None else seen

    return attention_mask


@AREA.mutant(
    "padding-mask-replaces-causal",
    replaces=_MASK,
    does="Where a row is padded, uses the padding mask as the whole mask: neither causal nor windowed.",
    symptom="The loss of padded batches is too good, since it reads the answers; unpadded input is right.",
    cure="And the padding mask with the causal and the sliding mask.",
    first_tap=_PROBS,
    links=("unslothai/unsloth-zoo#963", "unslothai/unsloth-zoo@c78b916e"),
)
def _padding_alone(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen: Array = right(q_positions, k_positions, k_valid, window)
        valid = k_valid.astype(bool)
        return seen if valid.all() else np.broadcast_to(valid[:, None, :], seen.shape)

    return attention_mask


@AREA.mutant(
    "batch-left-padding-lost",
    replaces=_MASK,
    does="Forgets which columns are pads, so real tokens attend to them.",
    symptom="In a ragged batch the longest row is right, shorter ones differ from their single runs.",
    cure="Count each row's pads before padding makes the rows equally long.",
    first_tap=_PROBS,
    links=("Blaizzy/mlx-vlm#1542", "Blaizzy/mlx-vlm#1543"),
)
def _pads_attended(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        return right(q_positions, k_positions, np.ones_like(k_valid), window)

    return attention_mask


@AREA.mutant(
    "left-pad-rows-nan",
    replaces="oracle.decoder.Decoder.attention",
    does="Gives NaN for a query that sees no key, as a pad's does.",
    symptom="Real tokens of padded rows turn NaN one layer later, through 0 * NaN at the pads' values.",
    cure="Let a query that sees nothing attend to anything, or zero its context.",
    first_tap="self_attn.context",
    layers="layers past the first",
    links=("huggingface/transformers#47651", "huggingface/transformers#47678", "unslothai/unsloth#9708"),
)
def _empty_rows_nan(right: Function) -> Function:
    def nan_where_empty(right_softmax: Function) -> Function:
        def softmax(scores: Array, ar: Arithmetic, mask: Array) -> Array:
            weights: Array = right_softmax(scores, ar, mask)
            return np.where(mask.any(-1, keepdims=True), weights, ar.scalar(float("nan"), weights))

        return softmax

    def attention(self: Decoder, index: int, x: Array, positions: Array, valid: Array, **named: Any) -> Any:
        def no_keys_for_pads(right_mask: Function) -> Function:
            def attention_mask(*args: Any) -> Any:
                return right_mask(*args) & valid[:, :, None].astype(bool)  # [B, L, S]

            return attention_mask

        with replaced(_MASK, no_keys_for_pads), replaced("oracle.attention.softmax", nan_where_empty):
            return right(self, index, x, positions, valid, **named)

    return attention


@AREA.mutant(
    "window-on-full-layers",
    replaces="config.TextConfig.window_of",
    does="Applies the sliding window to full layers as well.",
    symptom="Exact for prompts up to w tokens; nothing further back is ever recalled.",
    cure="Full layers are causal without a window.",
    first_tap=_PROBS,
    layers=_FULL,
)
def _window_everywhere(right: Function) -> Function:
    del right

    def window_of(self: TextConfig, layer: int) -> int | None:
        del layer
        return self.sliding_window

    return window_of


@AREA.mutant(
    "bidirectional-for-text",
    replaces=_MASK,
    does="Takes text for image tokens: sliding layers also see the w-1 tokens after the query.",
    symptom="Token by token is right; prefill reads the future.",
    cure="Bidirectional attention is for spans of one image; text is causal.",
    first_tap=_PROBS,
    layers=_SLIDING,
    links=("Blaizzy/mlx-vlm#1280", "ml-explore/mlx-swift-lm@eea29086"),
)
def _bidirectional(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        seen: Array = right(q_positions, k_positions, k_valid, window)
        if window is None:
            return seen
        ahead = k_positions[:, None, :] - q_positions[:, :, None]  # [B, L, S]
        return seen | ((ahead >= 0) & (ahead < window) & k_valid[:, None, :].astype(bool))

    return attention_mask


@AREA.mutant(
    "causal-mask-top-left",
    replaces=_MASK,
    does="Aligns the causal mask of a pass with history to the first column: query i sees columns 0 .. i.",
    symptom="One call is right; after it every token sees the beginning of the text alone.",
    cure="Align the mask to the last column: query i of L sees columns up to S-L+i.",
    first_tap=_PROBS,
)
def _top_left(right: Function) -> Function:
    def attention_mask(q_positions: Array, k_positions: Array, k_valid: Array, window: int | None) -> Array:
        if q_positions.shape == k_positions.shape:
            return right(q_positions, k_positions, k_valid, window)
        rows, columns = np.arange(q_positions.shape[1])[None], np.arange(k_positions.shape[1])[None]
        return right(rows, columns, k_valid, window)

    return attention_mask
