"""Mistakes in the gated MLP.

Shape letters: D hidden, F feed-forward width.
"""

from __future__ import annotations

import math

import numpy as np

from reference.mutants.registry import Area
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops

AREA = Area("MLP", place=140)

_ACT = "mlp.act"


def silu(x: Array, ar: Arithmetic, slope: float = 1.0) -> Array:
    """x * sigmoid(slope * x), rounded once."""
    wide = x.astype(ar.wide)
    one = ar.scalar(1.0, wide)
    return (wide / (one + np.exp(ar.scalar(-slope, wide) * wide))).astype(x.dtype)


@AREA.mutant(
    "gelu-erf",
    does="Computes GELU by the error function, x/2 * (1 + erf(x / sqrt 2)).",
    symptom="Activations off by up to 5e-4: seen in float32, drowned in a 16-bit dtype.",
    cure="hidden_activation is gelu_pytorch_tanh: use the tanh form.",
    first_tap=_ACT,
    links=("tenstorrent/tt-metal#48291",),
    equivalent_in={
        "bf16": "The two forms are at most 5e-4 apart; half a step of tanh near -1 times x/2 is 2e-3 in the tanh form.",
    },
    survives_in={"f16": "The forms differ by less than 1.5 half steps of tanh times x/2: honest rounding is as large."},
    caught_by=(
        "module/experts/fused",
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Erf(Ops):
    def gelu_tanh(self, x: Array) -> Array:
        ar = self.ar
        wide = x.astype(ar.wide)
        erf = np.vectorize(math.erf, otypes=[ar.wide])(wide.astype(np.float64) / math.sqrt(2.0))
        return (ar.scalar(0.5, wide) * wide * (ar.scalar(1.0, wide) + erf)).astype(x.dtype)


@AREA.mutant(
    "gelu-silu",
    does="Activates with SiLU, x * sigmoid(x), wherever GELU stands: MLP, experts, PLE gate.",
    symptom="Fluent but worse text; activations of the right sign and up to 0.2 off.",
    cure="Use the tanh form of GELU.",
    first_tap=_ACT,
    links=("ml-explore/mlx-swift-lm#210",),
    caught_by=(
        "module/experts/fused",
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class Silu(Ops):
    def gelu_tanh(self, x: Array) -> Array:
        return silu(x, self.ar)


@AREA.mutant(
    "gelu-sigmoid",
    does="Approximates GELU by x * sigmoid(1.702 x).",
    symptom="Activations off by up to 0.02 around |x| = 2; text hardly changes.",
    cure="Use the tanh form of GELU, not the fast one.",
    first_tap=_ACT,
    caught_by=(
        "module/experts/fused",
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Sigmoid(Ops):
    def gelu_tanh(self, x: Array) -> Array:
        return silu(x, self.ar, slope=1.702)


@AREA.mutant(
    "mlp-gate-up-swapped",
    does="Activates up_proj's output and multiplies it by gate_proj's.",
    symptom="Garbage; all shapes fit.",
    cure="gelu_tanh(gate_proj x) * up_proj x.",
    first_tap=_ACT,
    caught_by=(
        "module/experts/fused",
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _GateUpSwapped(Ops):
    def activation(self, x: Array, gate: Array, up: Array) -> Array:
        return super().activation(x, up, gate)


@AREA.mutant(
    "mlp-activation-missing",
    does="Multiplies gate_proj's output by up_proj's with no activation between.",
    symptom="Garbage; negative gates let through what they should shut out.",
    cure="Put gelu_tanh around the gate before the product.",
    first_tap=_ACT,
    caught_by=(
        "module/experts/fused",
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _ActivationMissing(Ops):
    def activation(self, x: Array, gate: Array, up: Array) -> Array:
        return self.ar.linear(x, gate) * self.ar.linear(x, up)


@AREA.mutant(
    "mlp-not-double-wide",
    does="Gives every layer an MLP of intermediate_size and loads the first half of the channels of a double-wide one.",
    symptom="E2B degrades from its first KV-shared layer on; a strict loader stops at the shapes.",
    cure="Under use_double_wide_mlp the KV-shared layers have 2 * intermediate_size channels.",
    first_tap=_ACT,
    layers="KV-shared layers",
    links=("huggingface/candle@933194636", "NVIDIA-NeMo/Megatron-Bridge#4683", "ml-explore/mlx-lm#1095"),
    caught_by=(
        "layer/e2b-mini/full-shared-hot",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NotDoubleWide(Decoder):
    def weight(self, index: int, name: str) -> Array:
        loaded, width = super().weight(index, name), self.config.intermediate_size
        if name in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
            return loaded[:width]  # [F, D]
        return loaded[:, :width] if name == "mlp.down_proj.weight" else loaded  # [D, F]
