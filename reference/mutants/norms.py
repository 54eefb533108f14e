"""Mistakes in RMSNorm, and in which norm stands where.

Shape letters: B batch, L query length, D normalised width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from reference.mutants.mutant import Function, Wrong, replaced
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.taps import Recorder, silent

AREA = Area("norms")

_RMS_NORM = "oracle.norm.rms_norm"
_FIRST = "model.per_layer_projection_norm or input_layernorm or self_attn.q_norm"


def without_norm(name: str) -> Wrong:
    """`Decoder._norm` that lets the input of one norm through as it is."""

    def wrong(right: Function) -> Function:
        def norm(self: Decoder, index: int, asked: str, x: Array, tap: Recorder) -> Array:
            if asked != name:
                return right(self, index, asked, x, tap)
            tap(name, x)
            return x

        return norm

    return wrong


def weights_swapped(first: str, second: str) -> Wrong:
    """`Decoder._weight` that confuses two weights of a layer."""
    other = {f"{first}.weight": f"{second}.weight", f"{second}.weight": f"{first}.weight"}

    def wrong(right: Function) -> Function:
        def weight(self: Decoder, index: int, name: str) -> Array:
            return right(self, index, other.get(name, name))

        return weight

    return wrong


@AREA.mutant(
    "rmsnorm-plus-one",
    replaces=_RMS_NORM,
    does="Multiplies by 1 + w, as Gemma 1 to 3 do.",
    symptom="Garbage from the first norm on.",
    cure="Multiply by w itself.",
    first_tap=_FIRST,
    links=("huggingface/candle@9a0ced10d", "ml-explore/mlx-swift-lm#188", "AI-Hypercomputer/maxtext#3904"),
)
def _plus_one(right: Function) -> Function:
    def rms_norm(x: Array, weight: Array | None, eps: float, ar: Arithmetic) -> Array:
        if weight is not None:
            weight = weight.astype(ar.wide) + ar.wide.type(1.0)
        return right(x, weight, eps, ar)

    return rms_norm


@AREA.mutant(
    "rmsnorm-eps-outside-root",
    replaces=_RMS_NORM,
    does="Divides by sqrt(mean square) + eps.",
    symptom="Rows of ordinary size are right, rows whose RMS is near 1e-3 come out too large.",
    cure="Divide by sqrt(mean square + eps).",
    first_tap=_FIRST,
)
def _eps_outside_root(_: Function) -> Function:
    def rms_norm(x: Array, weight: Array | None, eps: float, ar: Arithmetic) -> Array:
        wide = x.astype(ar.wide)
        root = np.sqrt(ar.sum(wide * wide) / ar.scalar(x.shape[-1], wide)) + ar.scalar(eps, wide)  # [..., 1]
        y = wide / root
        return (y if weight is None else y * weight.astype(ar.wide)).astype(x.dtype)

    return rms_norm


@AREA.mutant(
    "rmsnorm-eps-missing",
    replaces=_RMS_NORM,
    does="Leaves eps out.",
    symptom="A row of zeros becomes NaN, and so do all tokens that attend to it; small rows come out too large.",
    cure="Add rms_norm_eps to the mean square.",
    first_tap=_FIRST,
)
def _eps_missing(right: Function) -> Function:
    def rms_norm(x: Array, weight: Array | None, _: float, ar: Arithmetic) -> Array:
        return right(x, weight, 0.0, ar)

    return rms_norm


@AREA.mutant(
    "rmsnorm-eps-hardcoded",
    replaces=_RMS_NORM,
    does="Takes 1e-6 for eps, whatever the config says.",
    symptom="Published checkpoints are right; a config with another rms_norm_eps is not.",
    cure="Read rms_norm_eps.",
    first_tap=_FIRST,
    links=("ml-explore/mlx-swift-lm#249",),
)
def _eps_hardcoded(right: Function) -> Function:
    def rms_norm(x: Array, weight: Array | None, _: float, ar: Arithmetic) -> Array:
        return right(x, weight, 1e-6, ar)

    return rms_norm


@AREA.mutant(
    "rmsnorm-in-low-precision",
    replaces=_RMS_NORM,
    does="Squares, sums and takes the mean in the storage dtype.",
    symptom="float16 overflows at an RMS of 256 and the row comes out zero; bfloat16 loses small terms of the sum.",
    cure="Cast to float32 before squaring, back after the weight.",
    first_tap=_FIRST,
    links=("google-deepmind/gemma@e8eb614",),
    equivalent_in={
        "f64": "The storage dtype is the one that norms are computed in.",
        "f32": "The storage dtype is the one that norms are computed in.",
    },
)
def _in_low_precision(right: Function) -> Function:
    def rms_norm(x: Array, weight: Array | None, eps: float, ar: Arithmetic) -> Array:
        return right(x, weight, eps, dataclasses.replace(ar, wide=x.dtype, accumulate=x.dtype))

    return rms_norm


@AREA.mutant(
    "rmsnorm-as-layernorm",
    replaces=_RMS_NORM,
    does="Subtracts the mean before it normalises.",
    symptom="Small errors everywhere, as large as the rows' means.",
    cure="RMSNorm centres nothing.",
    first_tap=_FIRST,
)
def _as_layernorm(right: Function) -> Function:
    def rms_norm(x: Array, weight: Array | None, eps: float, ar: Arithmetic) -> Array:
        mean = ar.sum(x.astype(ar.wide)) / ar.wide.type(x.shape[-1])  # [..., 1]
        return right((x.astype(ar.wide) - mean).astype(x.dtype), weight, eps, ar)

    return rms_norm


AREA.mutant(
    "norms-swapped-around-attention",
    replaces="oracle.decoder.Decoder._weight",
    does="Normalises attention's output with pre_feedforward_layernorm's weight and the MLP's input with "
    "post_attention_layernorm's, which is where that name points in models of two norms per layer.",
    symptom="Attention's branch too strong and the MLP's input too weak; nothing crashes.",
    cure="post_attention_layernorm closes the attention branch; pre_feedforward_layernorm opens the MLP's.",
    first_tap="post_attention_layernorm",
)(weights_swapped("post_attention_layernorm", "pre_feedforward_layernorm"))

AREA.mutant(
    "post-attention-norm-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Adds o_proj's output to the stream without post_attention_layernorm.",
    symptom="The attention branch drowns the stream or vanishes in it.",
    cure="Normalise attention's output before it is added.",
    first_tap="post_attention_layernorm",
)(without_norm("post_attention_layernorm"))

AREA.mutant(
    "pre-feedforward-norm-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Feeds the MLP the stream itself, without pre_feedforward_layernorm.",
    symptom="The MLP's activations grow with the stream.",
    cure="Normalise the MLP's input.",
    first_tap="pre_feedforward_layernorm",
)(without_norm("pre_feedforward_layernorm"))

AREA.mutant(
    "post-feedforward-norm-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Adds the feed-forward's output to the stream without post_feedforward_layernorm.",
    symptom="The feed-forward branch drowns the stream or vanishes in it.",
    cure="Normalise the feed-forward's output, of dense and sparse branch together, before it is added.",
    first_tap="post_feedforward_layernorm",
)(without_norm("post_feedforward_layernorm"))


@AREA.mutant(
    "residual-from-normed",
    replaces="oracle.decoder.Decoder.layer",
    does="Adds attention's branch to the normalised input in the place of the stream.",
    symptom="The stream is reset in every layer; text is garbage.",
    cure="Keep the layer's input as the residual before input_layernorm.",
    first_tap="residual_1",
)
def _residual_from_normed(right: Function) -> Function:
    def layer(self: Decoder, index: int, h: Array, *args: Array, **named: Any) -> tuple[Array, KeyValues]:
        x = self._norm(index, "input_layernorm", h, silent)
        with replaced("oracle.decoder.Decoder._norm", without_norm("input_layernorm")):
            return right(self, index, x, *args, **named)

    return layer


@AREA.mutant(
    "final-norm-missing",
    replaces="oracle.decoder.Decoder.forward",
    does="Feeds the head the last layer's output, without model.norm.",
    symptom="Every layer is right; logits are small and their ranking is off.",
    cure="Normalise the last layer's output before the head.",
    first_tap="model.norm",
)
def _final_norm_missing(right: Function) -> Function:
    def forward(self: Decoder, *args: Any) -> Array:
        final = self.weights["model.norm.weight"]

        def rms_norm(rms_norm: Function) -> Function:
            return lambda x, weight, *rest: x if weight is final else rms_norm(x, weight, *rest)

        with replaced(_RMS_NORM, rms_norm):
            return right(self, *args)

    return forward


@AREA.mutant(
    "last-hidden-after-norm",
    replaces="oracle.decoder.Decoder.forward",
    does="Shows the final norm's output for the last layer's: the last of the library's hidden states is normalised.",
    symptom="Logits are right; whatever starts from the last layer's raw output, a drafter for one, is not.",
    cure="Tap the last layer itself, before model.norm.",
    first_tap="output",
    layers="the last layer",
    links=("Blaizzy/mlx-vlm#1166", "ml-explore/mlx-swift-lm#267"),
)
def _last_hidden_after_norm(right: Function) -> Function:
    def forward(
        self: Decoder,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        last = f"model.layers.{self.config.num_hidden_layers - 1}.output"

        def show(name: str, value: Array) -> None:
            if name == "model.norm":
                record(last, value)
            if name != last:
                record(name, value)

        return right(self, ids, positions, valid, cache, show)

    return forward
