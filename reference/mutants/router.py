"""Mistakes in the router of the mixture of experts.

Shape letters: B batch, L query length, D hidden, X experts.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from reference.mutants.mutant import with_ops
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.taps import Recorder

AREA = Area("router", place=150)

_PROJ, _COMBINE = "router.proj", "router.combine"
_SAME_WEIGHTS = "exp(a) / sum over the chosen of exp(b) is what dividing by the sum over all leaves when it cancels."


class _RouterReads(Decoder):
    """Feeds the router the stream through a weighted norm of the layer."""

    read: ClassVar[str]

    def mixture_of_experts(self, index: int, h: Array, tap: Recorder) -> Array:
        x = self.ops.rms_norm(h, self.weight(index, f"{self.read}.weight"), self.config.rms_norm_eps)

        class ReadsX(Ops):
            def router_logits(self, h: Array, *rest: Any) -> Array:
                return super().router_logits(x, *rest)

        return Decoder.mixture_of_experts(with_ops(self, ReadsX), index, h, tap)


@AREA.mutant(
    "router-double-norm",
    does="Feeds the router what the experts read, pre_feedforward_layernorm_2 of the stream, and normalises again.",
    symptom="A few wrong experts in every layer, fluent text, a high KL.",
    cure="The router reads the stream after attention's residual, raw.",
    first_tap=_PROJ,
    links=("NVIDIA-NeMo/Automodel#1852", "NVIDIA-NeMo/Automodel#1895", "Blaizzy/mlx-vlm#1347"),
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _DoubleNorm(_RouterReads):
    read = "pre_feedforward_layernorm_2"


@AREA.mutant(
    "router-fed-mlp-norm",
    does="Feeds the router what the shared MLP reads, pre_feedforward_layernorm of the stream.",
    symptom="A few wrong experts in every layer, fluent text, a high KL.",
    cure="The router reads the stream after attention's residual, raw.",
    first_tap=_PROJ,
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _FedMLPNorm(_RouterReads):
    read = "pre_feedforward_layernorm"


@AREA.mutant(
    "router-scale-missing",
    does="Leaves router.scale out.",
    symptom="Logits far too small: the experts' weights are nearly even, and some experts are wrong.",
    cure="Multiply the normalised stream by router.scale and D^-0.5.",
    first_tap=_PROJ,
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _ScaleMissing(Ops):
    def router_logits(self, h: Array, scale: Array, proj: Array, eps: float) -> Array:
        return super().router_logits(h, np.ones_like(scale), proj, eps)


@AREA.mutant(
    "router-root-missing",
    does="Leaves D^-0.5 out.",
    symptom="The right experts, but one of them takes all the weight.",
    cure="Multiply the normalised stream by router.scale and D^-0.5.",
    first_tap=_PROJ,
    links=("ml-explore/mlx-swift-lm#210",),
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _RootMissing(Ops):
    def router_logits(self, h: Array, scale: Array, proj: Array, eps: float) -> Array:
        return self.ar.linear(self.rms_norm(h, None, eps) * scale, proj)


@AREA.mutant(
    "router-norm-missing",
    does="Feeds the router's projection the scaled stream without normalising it.",
    symptom="The right experts, but their weights harden and soften with the size of the stream.",
    cure="Put an RMSNorm without a weight before router.scale.",
    first_tap=_PROJ,
    links=("ml-explore/mlx-swift-lm#210",),
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _NormMissing(Ops):
    def router_logits(self, h: Array, scale: Array, proj: Array, eps: float) -> Array:
        return self.ar.linear(h * scale * self.ar.scalar(h.shape[-1] ** -0.5, h), proj)


@AREA.mutant(
    "router-not-renormalised",
    does="Weighs the chosen experts by their share of the softmax over all.",
    symptom="The weights sum to less than 1: the sparse branch keeps its direction roughly, not its size.",
    cure="Divide the chosen probabilities by their sum.",
    first_tap=_COMBINE,
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _NotRenormalised(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        chosen = super().combine_weights(logits, np.ones_like(per_expert_scale), top_k) != 0  # [B, L, X]
        probs = self.softmax(logits).astype(logits.dtype)
        return np.where(chosen, probs, np.zeros_like(probs)) * per_expert_scale


@AREA.mutant(
    "router-softmax-over-chosen",
    does="Takes the softmax over the chosen logits alone and renormalises nothing.",
    symptom="None: the weights are the same up to rounding.",
    cure="Nothing to cure, as long as the softmax stays in float32.",
    first_tap=_COMBINE,
    links=("ml-explore/mlx-swift-lm#228", "ml-explore/mlx-lm#1114", "ollama/ollama@3412a8320"),
    equivalent_in=dict.fromkeys(("f64", "f32", "bf16", "f16"), _SAME_WEIGHTS),
)
class _SoftmaxOverChosen(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        chosen = super().combine_weights(logits, np.ones_like(per_expert_scale), top_k) != 0  # [B, L, X]
        return self.softmax(logits, chosen).astype(logits.dtype) * per_expert_scale


class _SigmoidForSoftmax(Ops):
    def softmax(self, scores: Array, mask: Array | None = None) -> Array:
        wide = scores.astype(self.ar.wide)
        one = self.ar.scalar(1.0, wide)
        return one / (one + np.exp(-wide))


@AREA.mutant(
    "router-sigmoid",
    does="Scores experts by the sigmoid of their logits instead of the softmax.",
    symptom="The right experts with weights too even.",
    cure="Softmax over all experts in float32, then top k, then renormalise.",
    first_tap=_COMBINE,
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _Sigmoid(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        return _SigmoidForSoftmax(self.ar).combine_weights(logits, per_expert_scale, top_k)


@AREA.mutant(
    "router-top-k-hardcoded",
    does="Chooses eight experts whatever the config says.",
    symptom="The published checkpoint is right; a config with another top_k_experts is not.",
    cure="Read top_k_experts.",
    first_tap=_COMBINE,
    caught_by=("forward/trap-moe/uniform-l19/no-cache",),
)
class _TopKHardcoded(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        return super().combine_weights(logits, per_expert_scale, min(8, logits.shape[-1]))


@AREA.mutant(
    "router-one-fewer",
    does="Chooses one expert fewer than top_k_experts.",
    symptom="The weakest of the chosen experts is missing and the others weigh a little more.",
    cure="Choose top_k_experts.",
    first_tap=_COMBINE,
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _OneFewer(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        return super().combine_weights(logits, per_expert_scale, top_k - 1)


@AREA.mutant(
    "per-expert-scale-missing",
    does="Leaves router.per_expert_scale out.",
    symptom="The weights sum to 1 where they should not; a fresh model is right, for its scales are 1.",
    cure="Multiply each chosen expert's weight by its scale, after the renormalisation.",
    first_tap=_COMBINE,
    links=("ollama/ollama#15214",),
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _PerExpertScaleMissing(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        return super().combine_weights(logits, np.ones_like(per_expert_scale), top_k)


@AREA.mutant(
    "per-expert-scale-in-logits",
    does="Multiplies the logits by per_expert_scale before the softmax.",
    symptom="Other experts, with weights that sum to 1.",
    cure="The scale belongs to the finished weights: softmax, top k, renormalise, then multiply.",
    first_tap=_COMBINE,
    links=("ml-explore/mlx-swift-lm#210",),
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _PerExpertScaleInLogits(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        return super().combine_weights(logits * per_expert_scale, np.ones_like(per_expert_scale), top_k)


@AREA.mutant(
    "per-expert-scale-twice",
    does="Folds per_expert_scale into the experts' down projections at load and applies it in the router as well.",
    symptom="Each expert's share is off by its own constant factor.",
    cure="Apply the scale in one of the two places.",
    first_tap=_COMBINE,
    links=("unslothai/unsloth-zoo@2bd6df69",),
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _PerExpertScaleTwice(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        return super().combine_weights(logits, per_expert_scale * per_expert_scale, top_k)


@AREA.mutant(
    "per-expert-scale-renormalised",
    does="Renormalises the combine weights after per_expert_scale, so that they sum to 1 again.",
    symptom="The sparse branch has the wrong size; its experts keep their shares.",
    cure="Renormalise first, then multiply by per_expert_scale.",
    first_tap=_COMBINE,
    caught_by=(
        "module/router/top-8-of-16",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _PerExpertScaleRenormalised(Ops):
    def combine_weights(self, logits: Array, per_expert_scale: Array, top_k: int) -> Array:
        scaled = super().combine_weights(logits, per_expert_scale, top_k)
        return scaled / self.ar.sum(scaled)
