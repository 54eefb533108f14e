"""Mistakes in attention: scale, QK-norm, heads, and masks of one pass.

Shape letters: B batch, L query length, S key length, H query heads, K key/value heads, E head dim.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from reference.mutants.mutant import with_ops
from reference.mutants.norms import NormLeftOut
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.oracle.ops import Ops
from reference.taps import Recorder

AREA = Area("attention", place=30)

_PROBS = "self_attn.probs"


@AREA.mutant(
    "attn-scale-not-one",
    does="Scales the scores by 1/sqrt(E).",
    symptom="Attention is too flat in every layer; text is garbage. A single token does not show it.",
    cure="Scale 1: q_norm's weight holds the scale.",
    first_tap=_PROBS,
    links=("huggingface/candle#3608", "ml-explore/mlx-swift-lm#210", "AI-Hypercomputer/maxtext#4938"),
    caught_by=(
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _ScaleNotOne(Ops):
    def attention_scores(self, q: Array, k: Array) -> Array:
        return super().attention_scores(q * self.ar.scalar(q.shape[-1] ** -0.5, q), k)


@AREA.mutant(
    "attn-scale-query-pre-attn-scalar",
    does="Scales the scores by 1/16, the query_pre_attn_scalar of Gemma 3, in layers of any head dim.",
    symptom="Attention is too flat in every layer; text is garbage.",
    cure="Scale 1: Gemma 4 has no query_pre_attn_scalar.",
    first_tap=_PROBS,
    links=("ml-explore/mlx-swift-lm@3856165c",),
    caught_by=(
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _ScaleOfGemma3(Ops):
    def attention_scores(self, q: Array, k: Array) -> Array:
        return super().attention_scores(q * self.ar.scalar(1 / 16, q), k)


@AREA.mutant(
    "attn-softcap-added",
    does="Caps the scores as Gemma 2 does: 50 tanh(s/50).",
    symptom="Sharp attention goes soft: scores near 25 lose 2, small ones nothing.",
    cure="No cap on scores; final_logit_softcapping is for the logits alone.",
    first_tap=_PROBS,
    links=("ml-explore/mlx-swift-lm@3856165c",),
    caught_by=(
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _Softcap(Ops):
    def attention_scores(self, q: Array, k: Array) -> Array:
        scores = super().attention_scores(q, k)
        cap = self.ar.scalar(50.0, scores)
        return np.tanh(scores / cap) * cap


@AREA.mutant(
    "attn-scores-in-bfloat16",
    does="Rounds the scores to bfloat16 before the softmax.",
    symptom="The first token of long prompts changes with the kernel: near a score of 20 the step is 1/8.",
    cure="Keep q k^T in the accumulator's precision until after the softmax.",
    first_tap=_PROBS,
    links=("EricLBuehler/mistral.rs@0b4e96991", "EricLBuehler/mistral.rs#2091", "scouzi1966/maclocal-api#93"),
    equivalent_in={"bf16": "A product of bfloat16 matrices is rounded to bfloat16 already."},
    caught_by=(
        "module/attention-core/causal",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _ScoresInBfloat16(Ops):
    def attention_scores(self, q: Array, k: Array) -> Array:
        scores = super().attention_scores(q, k)
        return scores.astype(ml_dtypes.bfloat16).astype(scores.dtype)


@AREA.mutant(
    "gqa-heads-tiled",
    does="Repeats keys and values by tiling: query head h reads key/value head h mod K instead of h // (H/K).",
    symptom="Garbage wherever 1 < K < H; models with one key/value head are right.",
    cure="repeat_interleave(H/K) over the head axis, not tile.",
    first_tap=_PROBS,
    caught_by=(
        "module/attention-core/causal",
        "attention/12b-mini/sliding-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _HeadsTiled(Ops):
    # The right function groups consecutive heads: those that share h mod K are lined up, and put back after.
    def attention_probs(self, q: Array, k: Array, mask: Array) -> Array:
        lined_up = _lined_up(q.shape[1], k.shape[1])
        return super().attention_probs(q[:, lined_up], k, mask)[:, np.argsort(lined_up)]

    def attention_context(self, probs: Array, v: Array) -> Array:
        batch, heads, length, _ = probs.shape
        lined_up = _lined_up(heads, v.shape[1])
        context = super().attention_context(probs[:, lined_up], v).reshape(batch, length, heads, -1)
        return context[:, :, np.argsort(lined_up)].reshape(batch, length, -1)


def _lined_up(heads: int, kv_heads: int) -> Array:
    return np.arange(heads).reshape(heads // kv_heads, kv_heads).T.ravel()


class _AsItLies(Ops):
    def attention_context(self, probs: Array, v: Array) -> Array:
        context = super().attention_context(probs, v)
        batch, heads, length, _ = probs.shape
        by_head = context.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)  # [B, H, L, E]
        return by_head.reshape(context.shape)


@AREA.mutant(
    "context-heads-not-transposed",
    does="Flattens the context of full layers as it lies, [B, H, L, E], into [B, L, H*E].",
    symptom="Decoding one token at a time is right; prefill mixes tokens and heads in full layers.",
    cure="Move the heads after L before flattening; kernels for E = 512 may write another layout than the others.",
    first_tap="self_attn.context",
    layers="full layers",
    links=("EricLBuehler/mistral.rs@6a92fb7a2", "EricLBuehler/mistral.rs@1b1851200"),
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _ContextNotTransposed(Decoder):
    def attention(self, index: int, *args: Any, **named: Any) -> tuple[Array, KeyValues]:
        decoder = self if self.config.is_sliding(index) else with_ops(self, _AsItLies)
        return Decoder.attention(decoder, index, *args, **named)


@AREA.mutant(
    "q-norm-missing",
    does="Leaves the queries unnormalised.",
    symptom="Scores of any size: attention collapses onto single keys.",
    cure="q = rope(rms_norm(q_proj x) * w) on every layer.",
    first_tap="self_attn.q_norm",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _QNormMissing(NormLeftOut):
    left_out = "self_attn.q_norm"


@AREA.mutant(
    "k-norm-missing",
    does="Leaves the keys unnormalised.",
    symptom="Scores of any size: attention collapses onto single keys.",
    cure="k = rope(rms_norm(k_proj x) * w) on every layer with keys of its own.",
    first_tap="self_attn.k_norm",
    layers="own-KV layers",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _KNormMissing(NormLeftOut):
    left_out = "self_attn.k_norm"


@AREA.mutant(
    "qk-norm-over-all-heads",
    does="Normalises queries and keys before cutting them into heads: one mean square over all heads of a token.",
    symptom="Heads keep their relative sizes; fluent but degraded text.",
    cure="Cut into heads first: the mean square is over one head's E channels.",
    first_tap="self_attn.q_norm",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NormOverAllHeads(Decoder):
    def norm(self, index: int, name: str, x: Array, tap: Recorder) -> Array:
        if name not in ("self_attn.q_norm", "self_attn.k_norm"):
            return super().norm(index, name, x, tap)
        batch, heads, length, head_dim = x.shape
        weight = np.tile(self.weight(index, f"{name}.weight"), heads)  # [heads*E]
        joint = x.transpose(0, 2, 1, 3).reshape(batch, length, heads * head_dim)
        joint = self.ops.rms_norm(joint, weight, self.config.rms_norm_eps)
        return tap(name, joint.reshape(batch, length, heads, head_dim).transpose(0, 2, 1, 3))


@AREA.mutant(
    "k-norm-weight-of-q",
    does="Normalises the keys with q_norm's weight.",
    symptom="Scores have the right size and the wrong channels; fluent but degraded text.",
    cure="Queries and keys have a norm each: q_norm and k_norm.",
    first_tap="self_attn.k_norm",
    layers="own-KV layers",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _KNormWeightOfQ(Decoder):
    def weight(self, index: int, name: str) -> Array:
        return super().weight(index, name.replace("k_norm", "q_norm"))
