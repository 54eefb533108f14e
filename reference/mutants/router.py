"""Mistakes in the router of the mixture of experts.

Shape letters: B batch, L query length, D hidden, X experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.mutants.mutant import Function, Wrong, replaced
from reference.mutants.registry import Area
from reference.oracle import norm
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.attention import softmax
from reference.oracle.decoder import Decoder
from reference.taps import Recorder

AREA = Area("router")

_LOGITS = "oracle.moe.router_logits"
_WEIGHTS = "oracle.moe.combine_weights"
_PROJ, _COMBINE = "router.proj", "router.combine"


def _router_reads(name: str) -> Wrong:
    """`Decoder._mixture_of_experts` whose router reads the stream through a weighted norm of the layer."""

    def wrong(right: Function) -> Function:
        def mixture(self: Decoder, index: int, h: Array, tap: Recorder) -> Array:
            x = norm.rms_norm(h, self._weight(index, f"{name}.weight"), self.config.rms_norm_eps, self.ar)
            with replaced(_LOGITS, lambda logits: lambda _, *rest: logits(x, *rest)):
                return right(self, index, h, tap)

        return mixture

    return wrong


AREA.mutant(
    "router-double-norm",
    replaces="oracle.decoder.Decoder._mixture_of_experts",
    does="Feeds the router what the experts read, pre_feedforward_layernorm_2 of the stream, and normalises again.",
    symptom="A few wrong experts in every layer, fluent text, a high KL.",
    cure="The router reads the stream behind attention's residual, raw.",
    first_tap=_PROJ,
    links=("NVIDIA-NeMo/Automodel#1852", "NVIDIA-NeMo/Automodel#1895", "Blaizzy/mlx-vlm#1347"),
)(_router_reads("pre_feedforward_layernorm_2"))

AREA.mutant(
    "router-fed-mlp-norm",
    replaces="oracle.decoder.Decoder._mixture_of_experts",
    does="Feeds the router what the shared MLP reads, pre_feedforward_layernorm of the stream.",
    symptom="A few wrong experts in every layer, fluent text, a high KL.",
    cure="The router reads the stream behind attention's residual, raw.",
    first_tap=_PROJ,
)(_router_reads("pre_feedforward_layernorm"))


@AREA.mutant(
    "router-scale-missing",
    replaces=_LOGITS,
    does="Leaves router.scale out.",
    symptom="Logits far too small: the experts' weights are nearly even, and some experts are wrong.",
    cure="Multiply the normalised stream by router.scale and D^-0.5.",
    first_tap=_PROJ,
)
def _scale_missing(right: Function) -> Function:
    def router_logits(h: Array, scale: Array, *rest: Any) -> Array:
        return right(h, np.ones_like(scale), *rest)

    return router_logits


@AREA.mutant(
    "router-root-missing",
    replaces=_LOGITS,
    does="Leaves D^-0.5 out.",
    symptom="The right experts, but one of them takes all the weight.",
    cure="Multiply the normalised stream by router.scale and D^-0.5.",
    first_tap=_PROJ,
    links=("ml-explore/mlx-swift-lm#210",),
)
def _root_missing(_: Function) -> Function:
    def router_logits(h: Array, scale: Array, proj: Array, eps: float, ar: Arithmetic) -> Array:
        return ar.linear(norm.rms_norm(h, None, eps, ar) * scale, proj)

    return router_logits


@AREA.mutant(
    "router-norm-missing",
    replaces=_LOGITS,
    does="Feeds the router's projection the scaled stream without normalising it.",
    symptom="The right experts, but their weights harden and soften with the size of the stream.",
    cure="Put an RMSNorm without a weight before router.scale.",
    first_tap=_PROJ,
    links=("ml-explore/mlx-swift-lm#210",),
)
def _norm_missing(_: Function) -> Function:
    def router_logits(h: Array, scale: Array, proj: Array, _: float, ar: Arithmetic) -> Array:
        return ar.linear(h * scale * ar.scalar(h.shape[-1] ** -0.5, h), proj)

    return router_logits


@AREA.mutant(
    "router-not-renormalised",
    replaces=_WEIGHTS,
    does="Weighs the chosen experts by their share of the softmax over all.",
    symptom="The weights sum to less than 1: the sparse branch keeps its direction roughly, not its size.",
    cure="Divide the chosen probabilities by their sum.",
    first_tap=_COMBINE,
)
def _not_renormalised(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, top_k: int, ar: Arithmetic) -> Array:
        chosen = right(logits, np.ones_like(per_expert_scale), top_k, ar) != 0  # [B, L, X]
        probs = softmax(logits, ar).astype(logits.dtype)
        return np.where(chosen, probs, np.zeros_like(probs)) * per_expert_scale

    return combine_weights


_SAME_WEIGHTS = "exp(a) / sum over the chosen of exp(b) is what dividing by the sum over all leaves when it cancels."


@AREA.mutant(
    "router-softmax-over-chosen",
    replaces=_WEIGHTS,
    does="Takes the softmax over the chosen logits alone and renormalises nothing.",
    symptom="None: the weights are the same up to rounding.",
    cure="Nothing to cure, as long as the softmax stays in float32.",
    first_tap=_COMBINE,
    links=("ml-explore/mlx-swift-lm#228", "ml-explore/mlx-lm#1114", "ollama/ollama@3412a8320"),
    equivalent_in=dict.fromkeys(("f64", "f32", "bf16", "f16"), _SAME_WEIGHTS),
)
def _softmax_over_chosen(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, top_k: int, ar: Arithmetic) -> Array:
        chosen = right(logits, np.ones_like(per_expert_scale), top_k, ar) != 0  # [B, L, X]
        return softmax(logits, ar, chosen).astype(logits.dtype) * per_expert_scale

    return combine_weights


@AREA.mutant(
    "router-sigmoid",
    replaces=_WEIGHTS,
    does="Scores experts by the sigmoid of their logits in the place of the softmax.",
    symptom="The right experts with weights too even.",
    cure="Softmax over all experts in float32, then top k, then renormalise.",
    first_tap=_COMBINE,
)
def _sigmoid(right: Function) -> Function:
    def sigmoid(x: Array, ar: Arithmetic) -> Array:
        wide = x.astype(ar.wide)
        return ar.scalar(1.0, wide) / (ar.scalar(1.0, wide) + np.exp(-wide))

    def combine_weights(*args: Any) -> Array:
        with replaced("oracle.moe.softmax", lambda _: sigmoid):
            return right(*args)

    return combine_weights


@AREA.mutant(
    "router-top-k-hardcoded",
    replaces=_WEIGHTS,
    does="Chooses eight experts whatever the config says.",
    symptom="The published checkpoint is right; a config with another top_k_experts is not.",
    cure="Read top_k_experts.",
    first_tap=_COMBINE,
)
def _top_k_hardcoded(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, _: int, ar: Arithmetic) -> Array:
        return right(logits, per_expert_scale, min(8, logits.shape[-1]), ar)

    return combine_weights


@AREA.mutant(
    "router-one-fewer",
    replaces=_WEIGHTS,
    does="Chooses one expert fewer than top_k_experts.",
    symptom="The weakest of the chosen experts is missing and the others weigh a little more.",
    cure="Choose top_k_experts.",
    first_tap=_COMBINE,
)
def _one_fewer(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, top_k: int, ar: Arithmetic) -> Array:
        return right(logits, per_expert_scale, top_k - 1, ar)

    return combine_weights


@AREA.mutant(
    "per-expert-scale-missing",
    replaces=_WEIGHTS,
    does="Leaves router.per_expert_scale out.",
    symptom="The weights sum to 1 where they should not; a fresh model is right, for its scales are 1.",
    cure="Multiply each chosen expert's weight by its scale, behind the renormalisation.",
    first_tap=_COMBINE,
    links=("ollama/ollama#15214",),
)
def _per_expert_scale_missing(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, top_k: int, ar: Arithmetic) -> Array:
        return right(logits, np.ones_like(per_expert_scale), top_k, ar)

    return combine_weights


@AREA.mutant(
    "per-expert-scale-in-logits",
    replaces=_WEIGHTS,
    does="Multiplies the logits by per_expert_scale before the softmax.",
    symptom="Other experts, with weights that sum to 1.",
    cure="The scale belongs to the finished weights: softmax, top k, renormalise, then multiply.",
    first_tap=_COMBINE,
    links=("ml-explore/mlx-swift-lm#210",),
)
def _per_expert_scale_in_logits(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, top_k: int, ar: Arithmetic) -> Array:
        return right(logits * per_expert_scale, np.ones_like(per_expert_scale), top_k, ar)

    return combine_weights


@AREA.mutant(
    "per-expert-scale-twice",
    replaces=_WEIGHTS,
    does="Folds per_expert_scale into the experts' down projections at load and applies it in the router as well.",
    symptom="Each expert's share is off by its own constant factor.",
    cure="Apply the scale in one of the two places.",
    first_tap=_COMBINE,
    links=("unslothai/unsloth-zoo@2bd6df69",),
)
def _per_expert_scale_twice(right: Function) -> Function:
    def combine_weights(logits: Array, per_expert_scale: Array, top_k: int, ar: Arithmetic) -> Array:
        return right(logits, per_expert_scale * per_expert_scale, top_k, ar)

    return combine_weights
