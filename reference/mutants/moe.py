"""Mistakes in the experts, and in how the sparse branch joins the dense one.

Shape letters: B batch, L query length, D hidden, F width of an expert, X experts.
"""

from __future__ import annotations

import numpy as np

from reference.mutants.mlp import Silu
from reference.mutants.norms import WeightsSwapped
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.taps import Recorder

AREA = Area("experts", place=160)

_DENSE_NORM = "post_feedforward_layernorm_1"
_SPARSE_NORM = "post_feedforward_layernorm_2"


@AREA.mutant(
    "gate-up-interleaved-split",
    does="Splits the fused gate_up_proj by even and odd rows.",
    symptom="Garbage from the experts; shapes and names fit.",
    cure="The gate is the first F rows, up the other F.",
    first_tap="experts",
    links=("ollama/ollama#15214",),
    caught_by=(
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _InterleavedSplit(Ops):
    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        in_halves = np.concatenate([gate_up[:, 0::2], gate_up[:, 1::2]], axis=1)  # [X, 2F, D]
        return super().experts(x, combine, in_halves, down)


@AREA.mutant(
    "gate-up-order-swapped",
    does="Takes the first F rows of gate_up_proj for up and the other F for the gate.",
    symptom="Garbage from the experts; shapes and names fit.",
    cure="The gate is the first F rows, up the other F.",
    first_tap="experts",
    caught_by=(
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _OrderSwapped(Ops):
    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        return super().experts(x, combine, np.roll(gate_up, gate_up.shape[1] // 2, axis=1), down)  # [X, 2F, D]


@AREA.mutant(
    "moe-expert-silu",
    does="Activates the experts with SiLU, the default of ready-made expert kernels; the shared MLP has GELU.",
    symptom="The dense branch is right, the experts are slightly off.",
    cure="Hand the expert kernel the tanh form of GELU.",
    first_tap="experts",
    links=("kekzl/imp#9",),
    caught_by=(
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _ExpertSilu(Ops):
    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        return Silu(self.ar).experts(x, combine, gate_up, down)


@AREA.mutant(
    "moe-weights-on-input",
    does="Multiplies an expert's input by its combine weight, and not its output.",
    symptom="The right experts, too quiet, their gates near zero.",
    cure="Weigh the expert's output: the activation between is not linear.",
    first_tap="experts",
    caught_by=(
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _WeightsOnInput(Ops):
    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        total = np.zeros_like(x)
        for expert in range(combine.shape[-1]):
            weight = combine[..., expert, None]  # [B, L, 1]
            chosen = np.zeros_like(combine)
            chosen[..., expert] = weight[..., 0] != 0
            total = total + super().experts(x * weight, chosen, gate_up, down)
        return total


@AREA.mutant(
    "moe-boundary-tile",
    does="Computes one tile of eight rows per expert and call, and leaves the rows beyond it out.",
    symptom="Decoding and short prompts are right; longer prefills lose experts of their later tokens.",
    cure="Give every expert as many tiles as its rows need.",
    first_tap="experts",
    links=("huggingface/candle#3476",),
    caught_by=("forward/26b-a4b-mini/uniform-l9/no-cache",),
)
class _BoundaryTile(Ops):
    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        chosen = (combine != 0).reshape(-1, combine.shape[-1])  # [B * L, X]
        in_tile = (np.cumsum(chosen, axis=0) <= 8).reshape(combine.shape)
        return super().experts(x, np.where(in_tile, combine, np.zeros_like(combine)), gate_up, down)


@AREA.mutant(
    "moe-experts-missing",
    does="Runs the shared MLP alone; the sparse branch is zero.",
    symptom="Gibberish; a lax loader has not found the experts' tensors.",
    cure="Load experts and router, and fail on tensors that are left over.",
    first_tap=_SPARSE_NORM,
    links=("EricLBuehler/mistral.rs@20a2402d6", "vllm-project/vllm#39045"),
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _ExpertsMissing(Decoder):
    def mixture_of_experts(self, index: int, h: Array, tap: Recorder) -> Array:
        return np.zeros_like(h)


@AREA.mutant(
    "moe-shared-mlp-missing",
    does="Runs the experts alone, as most mixtures do; the dense branch is zero.",
    symptom="Gibberish; mlp.* tensors are left over in the checkpoint.",
    cure="A layer adds both branches, each after its own norm.",
    first_tap=_DENSE_NORM,
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _SharedMLPMissing(Decoder):
    def norm(self, index: int, name: str, x: Array, tap: Recorder) -> Array:
        return super().norm(index, name, np.zeros_like(x) if name == _DENSE_NORM else x, tap)


@AREA.mutant(
    "moe-branch-norms-swapped",
    does="Normalises the dense branch with post_feedforward_layernorm_2 and the sparse one with _1.",
    symptom="Both branches keep their size and get the other's channel weights.",
    cure="_1 closes the shared MLP, _2 the experts.",
    first_tap=_DENSE_NORM,
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _BranchNormsSwapped(WeightsSwapped):
    swapped = (_DENSE_NORM, _SPARSE_NORM)


@AREA.mutant(
    "moe-experts-fed-mlp-norm",
    does="Feeds the experts what the shared MLP reads, pre_feedforward_layernorm of the stream.",
    symptom="The right experts compute on the wrong channel weights.",
    cure="The experts read pre_feedforward_layernorm_2 of the stream.",
    first_tap="pre_feedforward_layernorm_2",
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _ExpertsFedMLPNorm(Decoder):
    def weight(self, index: int, name: str) -> Array:
        return super().weight(index, name.replace("pre_feedforward_layernorm_2", "pre_feedforward_layernorm"))


@AREA.mutant(
    "moe-weights-ignored",
    does="Averages the chosen experts and leaves their combine weights out.",
    symptom="The right experts run; the weakest chosen one counts as much as the strongest.",
    cure="Weigh each expert's output by its combine weight and add them up.",
    first_tap="experts",
    caught_by=(
        "module/experts/fused",
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _WeightsIgnored(Ops):
    def experts(self, x: Array, combine: Array, gate_up: Array, down: Array) -> Array:
        chosen = (combine != 0).astype(combine.dtype)
        return super().experts(x, chosen / self.ar.sum(chosen), gate_up, down)
