"""Mistakes in the experts, and in how the sparse branch joins the dense one.

Shape letters: B batch, L query length, D hidden, F width of an expert, X experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.mutants.mlp import silu
from reference.mutants.mutant import Function, replaced
from reference.mutants.norms import weights_swapped
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.taps import Recorder

AREA = Area("experts")

_EXPERTS = "oracle.moe.experts"
_DENSE_NORM = "post_feedforward_layernorm_1"
_SPARSE_NORM = "post_feedforward_layernorm_2"


@AREA.mutant(
    "gate-up-interleaved-split",
    replaces=_EXPERTS,
    does="Splits the fused gate_up_proj by even and odd rows.",
    symptom="Garbage from the experts; shapes and names fit.",
    cure="The gate is the first F rows, up the other F.",
    first_tap="experts",
    links=("ollama/ollama#15214",),
)
def _interleaved_split(right: Function) -> Function:
    def experts(x: Array, combine: Array, gate_up: Array, down: Array, ar: Arithmetic) -> Array:
        return right(x, combine, np.concatenate([gate_up[:, 0::2], gate_up[:, 1::2]], axis=1), down, ar)  # [X, 2F, D]

    return experts


@AREA.mutant(
    "gate-up-order-swapped",
    replaces=_EXPERTS,
    does="Takes the first F rows of gate_up_proj for up and the other F for the gate.",
    symptom="Garbage from the experts; shapes and names fit.",
    cure="The gate is the first F rows, up the other F.",
    first_tap="experts",
)
def _order_swapped(right: Function) -> Function:
    def experts(x: Array, combine: Array, gate_up: Array, down: Array, ar: Arithmetic) -> Array:
        return right(x, combine, np.roll(gate_up, gate_up.shape[1] // 2, axis=1), down, ar)  # [X, 2F, D]

    return experts


@AREA.mutant(
    "moe-expert-silu",
    replaces=_EXPERTS,
    does="Activates the experts with SiLU, the default of ready-made expert kernels; the shared MLP has GELU.",
    symptom="The dense branch is right, the experts are slightly off.",
    cure="Hand the expert kernel the tanh form of GELU.",
    first_tap="experts",
    links=("kekzl/imp#9",),
)
def _expert_silu(right: Function) -> Function:
    def experts(*args: Any) -> Array:
        with replaced("oracle.mlp.gelu_tanh", lambda _: silu):
            return right(*args)

    return experts


@AREA.mutant(
    "moe-weights-on-input",
    replaces=_EXPERTS,
    does="Multiplies an expert's input by its combine weight, and not its output.",
    symptom="The right experts, too quiet, their gates near zero.",
    cure="Weigh the expert's output: the activation between is not linear.",
    first_tap="experts",
)
def _weights_on_input(right: Function) -> Function:
    def experts(x: Array, combine: Array, gate_up: Array, down: Array, ar: Arithmetic) -> Array:
        total = np.zeros_like(x)
        for expert in range(combine.shape[-1]):
            weight = combine[..., expert, None]  # [B, L, 1]
            chosen = np.zeros_like(combine)
            chosen[..., expert] = weight[..., 0] != 0
            total = total + right(x * weight, chosen, gate_up, down, ar)
        return total

    return experts


@AREA.mutant(
    "moe-boundary-tile",
    replaces=_EXPERTS,
    does="Computes one tile of eight rows per expert and call, and leaves the rows beyond it out.",
    symptom="Decoding and short prompts are right; longer prefills lose experts of their later tokens.",
    cure="Give every expert as many tiles as its rows need.",
    first_tap="experts",
    links=("huggingface/candle#3476",),
)
def _boundary_tile(right: Function) -> Function:
    def experts(x: Array, combine: Array, *rest: Any) -> Array:
        chosen = (combine != 0).reshape(-1, combine.shape[-1])  # [B * L, X]
        in_tile = (np.cumsum(chosen, axis=0) <= 8).reshape(combine.shape)
        return right(x, np.where(in_tile, combine, np.zeros_like(combine)), *rest)

    return experts


@AREA.mutant(
    "moe-experts-missing",
    replaces="oracle.decoder.Decoder._mixture_of_experts",
    does="Runs the shared MLP alone; the sparse branch is zero.",
    symptom="Gibberish; a lax loader has not found the experts' tensors.",
    cure="Load experts and router, and fail on tensors that are left over.",
    first_tap=_SPARSE_NORM,
    links=("EricLBuehler/mistral.rs@20a2402d6", "vllm-project/vllm#39045"),
)
def _experts_missing(_: Function) -> Function:
    def mixture(self: Decoder, index: int, h: Array, tap: Recorder) -> Array:
        return np.zeros_like(h)

    return mixture


@AREA.mutant(
    "moe-shared-mlp-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Runs the experts alone, as most mixtures do; the dense branch is zero.",
    symptom="Gibberish; mlp.* tensors are left over in the checkpoint.",
    cure="A layer adds both branches, each behind its own norm.",
    first_tap=_DENSE_NORM,
)
def _shared_mlp_missing(right: Function) -> Function:
    def norm(self: Decoder, index: int, name: str, x: Array, tap: Recorder) -> Array:
        return right(self, index, name, np.zeros_like(x) if name == _DENSE_NORM else x, tap)

    return norm


AREA.mutant(
    "moe-branch-norms-swapped",
    replaces="oracle.decoder.Decoder._weight",
    does="Normalises the dense branch with post_feedforward_layernorm_2 and the sparse one with _1.",
    symptom="Both branches keep their size and get the other's channel weights.",
    cure="_1 closes the shared MLP, _2 the experts.",
    first_tap=_DENSE_NORM,
)(weights_swapped(_DENSE_NORM, _SPARSE_NORM))


@AREA.mutant(
    "moe-experts-fed-mlp-norm",
    replaces="oracle.decoder.Decoder._weight",
    does="Feeds the experts what the shared MLP reads, pre_feedforward_layernorm of the stream.",
    symptom="The right experts compute on the wrong channel weights.",
    cure="The experts read pre_feedforward_layernorm_2 of the stream.",
    first_tap="pre_feedforward_layernorm_2",
)
def _experts_fed_mlp_norm(right: Function) -> Function:
    def weight(self: Decoder, index: int, name: str) -> Array:
        return right(self, index, name.replace("pre_feedforward_layernorm_2", "pre_feedforward_layernorm"))

    return weight
