"""Mistakes in the soft cap of the logits."""

from __future__ import annotations

import numpy as np

from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.ops import Ops

AREA = Area("logits", place=170)


@AREA.mutant(
    "softcap-missing",
    does="Returns the raw logits.",
    symptom="Greedy text is right, for tanh keeps the order; sampling, losses and KL are not.",
    cure="cap * tanh(x / cap) with final_logit_softcapping of text_config.",
    first_tap="logits",
    links=(
        "NVIDIA-NeMo/Megatron-Bridge#4610",
        "PrimeIntellect-ai/prime-rl#2362",
        "vllm-project/vllm#52173",
    ),
    caught_by=(
        "module/softcap/cap-12",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Missing(Ops):
    def softcap(self, x: Array, cap: float) -> Array:
        return x


@AREA.mutant(
    "softcap-wrong-formula",
    does="Computes x * tanh(x / cap).",
    symptom="Large negative logits come out large and positive, and nothing is capped.",
    cure="cap * tanh(x / cap).",
    first_tap="logits",
    links=("unslothai/unsloth-zoo#593",),
    caught_by=(
        "module/softcap/cap-12",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _WrongFormula(Ops):
    def softcap(self, x: Array, cap: float) -> Array:
        return x * np.tanh(x / self.ar.scalar(cap, x))


@AREA.mutant(
    "softcap-hardcoded",
    does="Caps at 30 whatever the config says.",
    symptom="Published checkpoints are right; a config with another final_logit_softcapping is not.",
    cure="Read final_logit_softcapping.",
    first_tap="logits",
    links=("ggml-org/llama.cpp#21390",),
    caught_by=(
        "module/softcap/cap-12",
        "forward/trap-softcap/uniform-l19/no-cache",
    ),
)
class _Hardcoded(Ops):
    def softcap(self, x: Array, cap: float) -> Array:
        return super().softcap(x, 30.0)


@AREA.mutant(
    "softcap-not-scaled-back",
    does="Returns tanh(x / cap) without the factor cap.",
    symptom="Logits within -1 and 1: greedy text is right, sampling is nearly uniform.",
    cure="Multiply by cap after tanh.",
    first_tap="logits",
    caught_by=(
        "module/softcap/cap-12",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NotScaledBack(Ops):
    def softcap(self, x: Array, cap: float) -> Array:
        return np.tanh(x / self.ar.scalar(cap, x))


@AREA.mutant(
    "softcap-twice",
    does="Caps logits that are capped already: in the model, and once more in the sampler or the loss.",
    symptom="Greedy text is right; the largest logits are pressed together and sampling is too even.",
    cure="Cap once, in the model.",
    first_tap="logits",
    caught_by=(
        "module/softcap/cap-12",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Twice(Ops):
    def softcap(self, x: Array, cap: float) -> Array:
        return super().softcap(super().softcap(x, cap), cap)
