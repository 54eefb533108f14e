"""Mistakes in the gated MLP.

Shape letters: D hidden, F feed-forward width.
"""

from __future__ import annotations

import math

import numpy as np

from reference.mutants.mutant import Function
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder

AREA = Area("MLP")

_ACT = "mlp.act"


def silu(x: Array, ar: Arithmetic, slope: float = 1.0) -> Array:
    """x * sigmoid(slope * x), rounded once."""
    wide = x.astype(ar.wide)
    one = ar.scalar(1.0, wide)
    return (wide / (one + np.exp(ar.scalar(-slope, wide) * wide))).astype(x.dtype)


@AREA.mutant(
    "gelu-erf",
    replaces="oracle.mlp.gelu_tanh",
    does="Computes GELU by the error function, x/2 * (1 + erf(x / sqrt 2)).",
    symptom="Activations off by up to 5e-4: seen in float32, drowned in a 16-bit dtype.",
    cure="hidden_activation is gelu_pytorch_tanh: use the tanh form.",
    first_tap=_ACT,
    links=("tenstorrent/tt-metal#48291",),
    equivalent_in={
        "bf16": "The two forms are at most 5e-4 apart; half a step of tanh near -1 times x/2 is 2e-3 in the tanh form.",
    },
    survives_in={"f16": "The forms differ by less than 1.5 half steps of tanh times x/2: honest rounding is as large."},
)
def _erf(_: Function) -> Function:
    def gelu_erf(x: Array, ar: Arithmetic) -> Array:
        wide = x.astype(ar.wide)
        erf = np.vectorize(math.erf, otypes=[ar.wide])(wide.astype(np.float64) / math.sqrt(2.0))
        return (ar.scalar(0.5, wide) * wide * (ar.scalar(1.0, wide) + erf)).astype(x.dtype)

    return gelu_erf


@AREA.mutant(
    "gelu-silu",
    replaces="oracle.mlp.gelu_tanh",
    does="Activates with SiLU, x * sigmoid(x), wherever GELU stands: MLP, experts, PLE gate.",
    symptom="Fluent but worse text; activations of the right sign and up to 0.2 off.",
    cure="Use the tanh form of GELU.",
    first_tap=_ACT,
    links=("ml-explore/mlx-swift-lm#210",),
)
def _silu(_: Function) -> Function:
    return silu


@AREA.mutant(
    "gelu-sigmoid",
    replaces="oracle.mlp.gelu_tanh",
    does="Approximates GELU by x * sigmoid(1.702 x).",
    symptom="Activations off by up to 0.02 around |x| = 2; text hardly changes.",
    cure="Use the tanh form of GELU, not the fast one.",
    first_tap=_ACT,
)
def _sigmoid(_: Function) -> Function:
    def gelu_sigmoid(x: Array, ar: Arithmetic) -> Array:
        return silu(x, ar, slope=1.702)

    return gelu_sigmoid


@AREA.mutant(
    "mlp-gate-up-swapped",
    replaces="oracle.mlp.activation",
    does="Activates up_proj's output and multiplies it by gate_proj's.",
    symptom="Garbage; all shapes fit.",
    cure="gelu_tanh(gate_proj x) * up_proj x.",
    first_tap=_ACT,
)
def _gate_up_swapped(right: Function) -> Function:
    def activation(x: Array, gate: Array, up: Array, ar: Arithmetic) -> Array:
        return right(x, up, gate, ar)

    return activation


@AREA.mutant(
    "mlp-activation-missing",
    replaces="oracle.mlp.activation",
    does="Multiplies gate_proj's output by up_proj's with no activation between.",
    symptom="Garbage; negative gates let through what they should shut out.",
    cure="Put gelu_tanh around the gate before the product.",
    first_tap=_ACT,
)
def _activation_missing(_: Function) -> Function:
    def activation(x: Array, gate: Array, up: Array, ar: Arithmetic) -> Array:
        return ar.linear(x, gate) * ar.linear(x, up)

    return activation


@AREA.mutant(
    "mlp-not-double-wide",
    replaces="oracle.decoder.Decoder._weight",
    does="Gives every layer an MLP of intermediate_size and loads the first half of the channels of a double-wide one.",
    symptom="E2B degrades from its first KV-shared layer on; a strict loader stops at the shapes.",
    cure="Under use_double_wide_mlp the KV-shared layers have 2 * intermediate_size channels.",
    first_tap=_ACT,
    layers="KV-shared layers",
    links=("huggingface/candle@933194636", "NVIDIA-NeMo/Megatron-Bridge#4683", "ml-explore/mlx-lm#1095"),
)
def _not_double_wide(right: Function) -> Function:
    def weight(self: Decoder, index: int, name: str) -> Array:
        loaded, width = right(self, index, name), self.config.intermediate_size
        if name in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
            return loaded[:width]  # [F, D]
        return loaded[:, :width] if name == "mlp.down_proj.weight" else loaded  # [D, F]

    return weight
