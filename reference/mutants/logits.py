"""Mistakes in the soft cap of the logits."""

from __future__ import annotations

import numpy as np

from reference.mutants.mutant import Function
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array

AREA = Area("logits")

_SOFTCAP = "oracle.logits.softcap"


@AREA.mutant(
    "softcap-missing",
    replaces=_SOFTCAP,
    does="Returns the raw logits.",
    symptom="Greedy text is right, for tanh keeps the order; sampling, losses and KL are not.",
    cure="cap * tanh(x / cap) with final_logit_softcapping of text_config.",
    first_tap="logits",
    links=(
        "NVIDIA-NeMo/Megatron-Bridge#4610",
        "PrimeIntellect-ai/prime-rl#2362",
        "vllm-project/vllm#52173",
    ),
)
def _missing(_: Function) -> Function:
    def softcap(x: Array, *_: object) -> Array:
        return x

    return softcap


@AREA.mutant(
    "softcap-wrong-formula",
    replaces=_SOFTCAP,
    does="Computes x * tanh(x / cap).",
    symptom="Large negative logits come out large and positive, and nothing is capped.",
    cure="cap * tanh(x / cap).",
    first_tap="logits",
    links=("unslothai/unsloth-zoo#593",),
)
def _wrong_formula(_: Function) -> Function:
    def softcap(x: Array, cap: float, ar: Arithmetic) -> Array:
        return x * np.tanh(x / ar.scalar(cap, x))

    return softcap


@AREA.mutant(
    "softcap-hardcoded",
    replaces=_SOFTCAP,
    does="Caps at 30 whatever the config says.",
    symptom="Published checkpoints are right; a config with another final_logit_softcapping is not.",
    cure="Read final_logit_softcapping.",
    first_tap="logits",
    links=("ggml-org/llama.cpp#21390",),
)
def _hardcoded(right: Function) -> Function:
    def softcap(x: Array, _: float, ar: Arithmetic) -> Array:
        return right(x, 30.0, ar)

    return softcap


@AREA.mutant(
    "softcap-not-scaled-back",
    replaces=_SOFTCAP,
    does="Returns tanh(x / cap) without the factor cap.",
    symptom="Logits within -1 and 1: greedy text is right, sampling is nearly uniform.",
    cure="Multiply by cap after tanh.",
    first_tap="logits",
)
def _not_scaled_back(_: Function) -> Function:
    def softcap(x: Array, cap: float, ar: Arithmetic) -> Array:
        return np.tanh(x / ar.scalar(cap, x))

    return softcap
