"""Mistakes in the branch that lets a layer's slice of the PLE in.

Shape letters: B batch, L query length, D hidden, P per-layer width.
"""

from __future__ import annotations

import copy
from typing import Any

from reference.mutants.mlp import silu
from reference.mutants.norms import NormLeftOut
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.oracle.ops import Ops
from reference.taps import Recorder

AREA = Area("PLE", place=100)

_GATED = "ple_gated"


@AREA.mutant(
    "ple-gate-silu",
    does="Activates the PLE gate with SiLU; the MLP has GELU.",
    symptom="Fluent but worse text on E2B and E4B alone.",
    cure="The gate takes the MLP's activation, the tanh form of GELU.",
    first_tap=_GATED,
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _GateSilu(Ops):
    def per_layer_gate(self, h: Array, layer_input: Array, weight: Array) -> Array:
        return silu(self.ar.linear(h, weight), self.ar) * layer_input


@AREA.mutant(
    "ple-gate-not-activated",
    does="Multiplies the PLE slice by the gate's raw output.",
    symptom="Channels that the gate should shut come through with their sign turned.",
    cure="gelu_tanh(per_layer_input_gate h) * slice.",
    first_tap=_GATED,
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _GateNotActivated(Ops):
    def per_layer_gate(self, h: Array, layer_input: Array, weight: Array) -> Array:
        return self.ar.linear(h, weight) * layer_input


@AREA.mutant(
    "ple-gelu-after-product",
    does="Multiplies gate and PLE slice first and activates the product.",
    symptom="The branch is never far below zero.",
    cure="Activate the gate alone, then multiply by the slice.",
    first_tap=_GATED,
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _GeluAfterProduct(Ops):
    def per_layer_gate(self, h: Array, layer_input: Array, weight: Array) -> Array:
        return self.gelu_tanh(self.ar.linear(h, weight) * layer_input)


@AREA.mutant(
    "ple-post-norm-missing",
    does="Adds the PLE branch to the stream as it leaves its projection, without post_per_layer_input_norm.",
    symptom="The branch's size follows the gate's; it should follow the norm's weight.",
    cure="Normalise per_layer_projection's output before it is added.",
    first_tap="post_per_layer_input_norm",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _PostNormMissing(NormLeftOut):
    left_out = "post_per_layer_input_norm"


@AREA.mutant(
    "ple-before-mlp",
    does="Adds the PLE branch between attention and feed-forward.",
    symptom="Attention is right, the feed-forward's input is not.",
    cure="The PLE branch comes last: after the feed-forward's residual, before layer_scalar.",
    first_tap="pre_feedforward_layernorm",
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _BeforeMLP(Decoder):
    _slice: Array | None = None
    """The layer's slice of the PLE, while it computes."""

    def layer(self, index: int, *args: Array, layer_input: Array | None, **named: Any) -> tuple[Array, KeyValues]:
        decoder = copy.copy(self)
        decoder._slice = layer_input
        return Decoder.layer(decoder, index, *args, layer_input=None, **named)

    def feed_forward(self, index: int, h: Array, tap: Recorder) -> Array:
        if self._slice is None:
            return super().feed_forward(index, h, tap)
        branch = self.per_layer_branch(index, h, self._slice, tap)
        return branch + super().feed_forward(index, h + branch, tap)


@AREA.mutant(
    "ple-gate-added",
    does="Adds the activated gate to the PLE slice instead of multiplying them.",
    symptom="Fluent but worse text on E2B and E4B alone.",
    cure="gelu_tanh(per_layer_input_gate h) * slice.",
    first_tap=_GATED,
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _GateAdded(Ops):
    def per_layer_gate(self, h: Array, layer_input: Array, weight: Array) -> Array:
        return self.gelu_tanh(self.ar.linear(h, weight)) + layer_input
