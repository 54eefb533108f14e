"""Mistakes in RMSNorm, and in which norm stands where.

Shape letters: B batch, L query length, D normalised width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from reference.mutants.mutant import with_ops
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.oracle.ops import Ops
from reference.taps import Recorder, silent

AREA = Area("norms", place=110)

_FIRST = "model.per_layer_projection_norm or input_layernorm or self_attn.q_norm"


class NoNorm(Ops):
    """Leaves everything unnormalised."""

    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        return x


class NormLeftOut(Decoder):
    """Lets the input of one norm of a layer through as it is."""

    left_out: ClassVar[str]

    def norm(self, index: int, name: str, x: Array, tap: Recorder) -> Array:
        if name != self.left_out:
            return super().norm(index, name, x, tap)
        return tap(name, x)


class WeightsSwapped(Decoder):
    """Confuses the weights of two norms of a layer."""

    swapped: ClassVar[tuple[str, str]]

    def weight(self, index: int, name: str) -> Array:
        first, second = (f"{norm}.weight" for norm in self.swapped)
        return super().weight(index, {first: second, second: first}.get(name, name))


@AREA.mutant(
    "rmsnorm-plus-one",
    does="Multiplies by 1 + w, as Gemma 1 to 3 do.",
    symptom="Garbage from the first norm on.",
    cure="Multiply by w itself.",
    first_tap=_FIRST,
    links=("huggingface/candle@9a0ced10d", "ml-explore/mlx-swift-lm#188", "AI-Hypercomputer/maxtext#3904"),
    caught_by=(
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _PlusOne(Ops):
    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        wide = self.ar.wide
        return super().rms_norm(x, None if weight is None else weight.astype(wide) + wide.type(1.0), eps)


@AREA.mutant(
    "rmsnorm-eps-outside-root",
    does="Divides by sqrt(mean square) + eps.",
    symptom="Rows of ordinary size are right, rows whose RMS is near 1e-3 come out too large.",
    cure="Divide by sqrt(mean square + eps).",
    first_tap=_FIRST,
    caught_by=(
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _EpsOutsideRoot(Ops):
    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        ar = self.ar
        wide = x.astype(ar.wide)
        root = np.sqrt(ar.sum(wide * wide) / ar.scalar(x.shape[-1], wide)) + ar.scalar(eps, wide)  # [..., 1]
        y = wide / root
        return (y if weight is None else y * weight.astype(ar.wide)).astype(x.dtype)


@AREA.mutant(
    "rmsnorm-eps-missing",
    does="Leaves eps out.",
    symptom="A row of zeros becomes NaN, and so do all tokens that attend to it; small rows come out too large.",
    cure="Add rms_norm_eps to the mean square.",
    first_tap=_FIRST,
    caught_by=(
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _EpsMissing(Ops):
    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        return super().rms_norm(x, weight, 0.0)


@AREA.mutant(
    "rmsnorm-eps-hardcoded",
    does="Takes 1e-6 for eps, whatever the config says.",
    symptom="Published checkpoints are right; a config with another rms_norm_eps is not.",
    cure="Read rms_norm_eps.",
    first_tap=_FIRST,
    links=("ml-explore/mlx-swift-lm#249",),
    caught_by=(
        "module/rms-norm/eps-1e-5",
        "forward/trap-eps/uniform-l19/no-cache",
    ),
)
class _EpsHardcoded(Ops):
    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        return super().rms_norm(x, weight, 1e-6)


@AREA.mutant(
    "rmsnorm-in-low-precision",
    does="Squares, sums and takes the mean in the storage dtype.",
    symptom="float16 overflows at an RMS of 256 and the row comes out zero; bfloat16 loses small terms of the sum.",
    cure="Cast to float32 before squaring, back after the weight.",
    first_tap=_FIRST,
    links=("google-deepmind/gemma@e8eb614",),
    equivalent_in={
        "f64": "The storage dtype is the one that norms are computed in.",
        "f32": "The storage dtype is the one that norms are computed in.",
    },
    caught_by=("module/rms-norm/large",),
)
class _InLowPrecision(Ops):
    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        narrow = dataclasses.replace(self.ar, wide=x.dtype, accumulate=x.dtype)
        return Ops(narrow).rms_norm(x, weight, eps)


@AREA.mutant(
    "rmsnorm-as-layernorm",
    does="Subtracts the mean before it normalises.",
    symptom="Small errors everywhere, as large as the rows' means.",
    cure="RMSNorm centres nothing.",
    first_tap=_FIRST,
    caught_by=(
        "module/ple/three-layers",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _AsLayerNorm(Ops):
    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> Array:
        wide = x.astype(self.ar.wide)
        mean = self.ar.sum(wide) / self.ar.wide.type(x.shape[-1])  # [..., 1]
        return super().rms_norm((wide - mean).astype(x.dtype), weight, eps)


@AREA.mutant(
    "norms-swapped-around-attention",
    does="Normalises attention's output with pre_feedforward_layernorm's weight and the MLP's input with "
    "post_attention_layernorm's, which is where that name points in models of two norms per layer.",
    symptom="Attention's branch too strong and the MLP's input too weak; nothing crashes.",
    cure="post_attention_layernorm closes the attention branch; pre_feedforward_layernorm opens the MLP's.",
    first_tap="post_attention_layernorm",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _SwappedAroundAttention(WeightsSwapped):
    swapped = ("post_attention_layernorm", "pre_feedforward_layernorm")


@AREA.mutant(
    "post-attention-norm-missing",
    does="Adds o_proj's output to the stream without post_attention_layernorm.",
    symptom="The attention branch drowns the stream or vanishes in it.",
    cure="Normalise attention's output before it is added.",
    first_tap="post_attention_layernorm",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _PostAttentionNormMissing(NormLeftOut):
    left_out = "post_attention_layernorm"


@AREA.mutant(
    "pre-feedforward-norm-missing",
    does="Feeds the MLP the stream itself, without pre_feedforward_layernorm.",
    symptom="The MLP's activations grow with the stream.",
    cure="Normalise the MLP's input.",
    first_tap="pre_feedforward_layernorm",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _PreFeedforwardNormMissing(NormLeftOut):
    left_out = "pre_feedforward_layernorm"


@AREA.mutant(
    "post-feedforward-norm-missing",
    does="Adds the feed-forward's output to the stream without post_feedforward_layernorm.",
    symptom="The feed-forward branch drowns the stream or vanishes in it.",
    cure="Normalise the feed-forward's output, of dense and sparse branch together, before it is added.",
    first_tap="post_feedforward_layernorm",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _PostFeedforwardNormMissing(NormLeftOut):
    left_out = "post_feedforward_layernorm"


@AREA.mutant(
    "residual-from-normed",
    does="Adds attention's branch to the normalised input instead of the stream.",
    symptom="The stream is reset in every layer; text is garbage.",
    cure="Keep the layer's input as the residual before input_layernorm.",
    first_tap="residual_1",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _ResidualFromNormed(NormLeftOut):
    left_out = "input_layernorm"

    def layer(self, index: int, h: Array, *args: Array, **named: Any) -> tuple[Array, KeyValues]:
        normed = Decoder.norm(self, index, "input_layernorm", h, silent)
        return super().layer(index, normed, *args, **named)


@AREA.mutant(
    "final-norm-missing",
    does="Feeds the head the last layer's output, without model.norm.",
    symptom="Every layer is right; logits are small and their ranking is off.",
    cure="Normalise the last layer's output before the head.",
    first_tap="model.norm",
    caught_by=("forward/e2b-mini/uniform-l1/no-cache",),
)
class _FinalNormMissing(Decoder):
    def unembed(self, h: Array, record: Recorder = silent) -> Array:
        return Decoder.unembed(with_ops(self, NoNorm), h, record)


@AREA.mutant(
    "last-hidden-after-norm",
    does="Shows the final norm's output for the last layer's: the last of the library's hidden states is normalised.",
    symptom="Logits are right; whatever starts from the last layer's raw output, a drafter for one, is not.",
    cure="Tap the last layer itself, before model.norm.",
    first_tap="output",
    layers="the last layer",
    links=("Blaizzy/mlx-vlm#1166", "ml-explore/mlx-swift-lm#267"),
    caught_by=("forward/e2b-mini/uniform-l1/no-cache",),
)
class _LastHiddenAfterNorm(Decoder):
    def forward(
        self,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        last = f"model.layers.{self.config.num_hidden_layers - 1}.output"

        def show(name: str, value: Array) -> Array:
            if name == "model.norm":
                record(last, value)
            return value if name == last else record(name, value)

        return super().forward(ids, positions, valid, cache, show)
