"""Mistakes in attention: scale, QK-norm, heads, and masks of one pass.

Shape letters: B batch, L query length, S key length, H query heads, K key/value heads, E head dim.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle import norm
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.taps import Recorder

AREA = Area("attention")

_PROBS = "self_attn.probs"


@AREA.mutant(
    "attn-scale-not-one",
    replaces="oracle.attention.attend",
    does="Scales the scores by 1/sqrt(E).",
    symptom="Attention is too flat in every layer; text is garbage. A single token does not show it.",
    cure="Scale 1: q_norm's weight holds the scale.",
    first_tap=_PROBS,
    links=("huggingface/candle#3608", "ml-explore/mlx-swift-lm#210", "AI-Hypercomputer/maxtext#4938"),
)
def _scale_not_one(right: Function) -> Function:
    def attend(q: Array, k: Array, v: Array, mask: Array, ar: Arithmetic) -> tuple[Array, Array]:
        return right(q * ar.scalar(q.shape[-1] ** -0.5, q), k, v, mask, ar)

    return attend


@AREA.mutant(
    "attn-scale-query-pre-attn-scalar",
    replaces="oracle.attention.attend",
    does="Scales the scores by 1/16, the query_pre_attn_scalar of Gemma 3, in layers of any head dim.",
    symptom="Attention is too flat in every layer; text is garbage.",
    cure="Scale 1: Gemma 4 has no query_pre_attn_scalar.",
    first_tap=_PROBS,
    links=("ml-explore/mlx-swift-lm@3856165c",),
)
def _scale_of_gemma_3(right: Function) -> Function:
    def attend(q: Array, k: Array, v: Array, mask: Array, ar: Arithmetic) -> tuple[Array, Array]:
        return right(q * ar.scalar(1 / 16, q), k, v, mask, ar)

    return attend


@AREA.mutant(
    "attn-softcap-added",
    replaces="oracle.attention.softmax",
    does="Caps the scores as Gemma 2 does: 50 tanh(s/50).",
    symptom="Sharp attention goes soft: scores near 25 lose 2, small ones nothing.",
    cure="No cap on scores; final_logit_softcapping is for the logits alone.",
    first_tap=_PROBS,
    links=("ml-explore/mlx-swift-lm@3856165c",),
)
def _softcap(right: Function) -> Function:
    def softmax(scores: Array, ar: Arithmetic, mask: Array | None = None) -> Array:
        cap = ar.scalar(50.0, scores)
        return right(np.tanh(scores / cap) * cap, ar, mask)

    return softmax


@AREA.mutant(
    "attn-scores-in-bfloat16",
    replaces="oracle.attention.softmax",
    does="Rounds the scores to bfloat16 before the softmax.",
    symptom="The first token of long prompts changes with the kernel: near a score of 20 the step is 1/8.",
    cure="Keep q k^T in the accumulator's precision until after the softmax.",
    first_tap=_PROBS,
    links=("EricLBuehler/mistral.rs@0b4e96991", "EricLBuehler/mistral.rs#2091", "scouzi1966/maclocal-api#93"),
    equivalent_in={"bf16": "A product of bfloat16 matrices is rounded to bfloat16 already."},
)
def _scores_in_bfloat16(right: Function) -> Function:
    def softmax(scores: Array, ar: Arithmetic, mask: Array | None = None) -> Array:
        return right(scores.astype(ml_dtypes.bfloat16).astype(scores.dtype), ar, mask)

    return softmax


@AREA.mutant(
    "gqa-heads-tiled",
    replaces="oracle.attention.attend",
    does="Repeats keys and values by tiling: query head h reads key/value head h mod K in the place of h // (H/K).",
    symptom="Garbage wherever 1 < K < H; models with one key/value head are right.",
    cure="repeat_interleave(H/K) over the head axis, not tile.",
    first_tap=_PROBS,
)
def _heads_tiled(right: Function) -> Function:
    def attend(q: Array, k: Array, v: Array, mask: Array, ar: Arithmetic) -> tuple[Array, Array]:
        batch, heads, length, head_dim = q.shape
        kv_heads = k.shape[1]
        # Right groups consecutive heads: line up those that share h mod K, and put them back after.
        lined_up = np.arange(heads).reshape(heads // kv_heads, kv_heads).T.ravel()
        back = np.argsort(lined_up)
        context, probs = right(q[:, lined_up], k, v, mask, ar)
        context = context.reshape(batch, length, heads, head_dim)[:, :, back]
        return context.reshape(batch, length, heads * head_dim), probs[:, back]

    return attend


@AREA.mutant(
    "context-heads-not-transposed",
    replaces="oracle.decoder.Decoder.attention",
    does="Flattens the context of full layers as it lies, [B, H, L, E], into [B, L, H*E].",
    symptom="Decoding one token at a time is right; prefill mixes tokens and heads in full layers.",
    cure="Move the heads behind L before flattening; kernels for E = 512 may write another layout than the others.",
    first_tap="self_attn.context",
    layers="full layers",
    links=("EricLBuehler/mistral.rs@6a92fb7a2", "EricLBuehler/mistral.rs@1b1851200"),
)
def _context_not_transposed(right: Function) -> Function:
    def as_it_lies(right_attend: Function) -> Function:
        def attend(q: Array, k: Array, v: Array, mask: Array, ar: Arithmetic) -> tuple[Array, Array]:
            context, probs = right_attend(q, k, v, mask, ar)
            batch, heads, length, head_dim = q.shape
            by_head = context.reshape(batch, length, heads, head_dim).transpose(0, 2, 1, 3)  # [B, H, L, E]
            return by_head.reshape(context.shape), probs

        return attend

    def attention(self: Decoder, index: int, *args: Any, **named: Any) -> Any:
        if self.config.is_sliding(index):
            return right(self, index, *args, **named)
        with replaced("oracle.attention.attend", as_it_lies):
            return right(self, index, *args, **named)

    return attention


@AREA.mutant(
    "q-norm-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Leaves the queries unnormalised.",
    symptom="Scores of any size: attention collapses onto single keys.",
    cure="q = rope(rms_norm(q_proj x) * w) on every layer.",
    first_tap="self_attn.q_norm",
)
def _q_norm_missing(right: Function) -> Function:
    return _norm_left_out(right, "self_attn.q_norm")


@AREA.mutant(
    "k-norm-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Leaves the keys unnormalised.",
    symptom="Scores of any size: attention collapses onto single keys.",
    cure="k = rope(rms_norm(k_proj x) * w) on every layer with keys of its own.",
    first_tap="self_attn.k_norm",
    layers="own-KV layers",
)
def _k_norm_missing(right: Function) -> Function:
    return _norm_left_out(right, "self_attn.k_norm")


def _norm_left_out(right: Function, left_out: str) -> Function:
    def apply_norm(self: Decoder, index: int, name: str, x: Array, tap: Recorder) -> Array:
        if name != left_out:
            return right(self, index, name, x, tap)
        tap(name, x)
        return x

    return apply_norm


@AREA.mutant(
    "qk-norm-over-all-heads",
    replaces="oracle.decoder.Decoder._norm",
    does="Normalises queries and keys before cutting them into heads: one mean square over all heads of a token.",
    symptom="Heads keep their relative sizes; fluent but degraded text.",
    cure="Cut into heads first: the mean square is over one head's E channels.",
    first_tap="self_attn.q_norm",
)
def _norm_over_all_heads(right: Function) -> Function:
    def apply_norm(self: Decoder, index: int, name: str, x: Array, tap: Recorder) -> Array:
        if name not in ("self_attn.q_norm", "self_attn.k_norm"):
            return right(self, index, name, x, tap)
        batch, heads, length, head_dim = x.shape
        weight = np.tile(self._weight(index, f"{name}.weight"), heads)  # [heads*E]
        joint = x.transpose(0, 2, 1, 3).reshape(batch, length, heads * head_dim)
        joint = norm.rms_norm(joint, weight, self.config.rms_norm_eps, self.ar)
        y = joint.reshape(batch, length, heads, head_dim).transpose(0, 2, 1, 3)
        tap(name, y)
        return y

    return apply_norm
