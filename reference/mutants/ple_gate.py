"""Mistakes in the branch that lets a layer's slice of the PLE in.

Shape letters: B batch, L query length, D hidden, P per-layer width.
"""

from __future__ import annotations

from typing import Any

from reference.mutants.mlp import silu
from reference.mutants.mutant import Function, replaced
from reference.mutants.norms import without_norm
from reference.mutants.registry import Area
from reference.oracle import mlp
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.taps import Recorder

AREA = Area("PLE")

_GATED = "ple_gated"


@AREA.mutant(
    "ple-gate-silu",
    replaces="oracle.ple.gate",
    does="Activates the PLE gate with SiLU; the MLP has GELU.",
    symptom="Fluent but worse text on E2B and E4B alone.",
    cure="The gate takes the MLP's activation, the tanh form of GELU.",
    first_tap=_GATED,
)
def _gate_silu(_: Function) -> Function:
    def gate(h: Array, layer_input: Array, weight: Array, ar: Arithmetic) -> Array:
        return silu(ar.linear(h, weight), ar) * layer_input

    return gate


@AREA.mutant(
    "ple-gate-not-activated",
    replaces="oracle.ple.gate",
    does="Multiplies the PLE slice by the gate's raw output.",
    symptom="Channels that the gate should shut come through with their sign turned.",
    cure="gelu_tanh(per_layer_input_gate h) * slice.",
    first_tap=_GATED,
)
def _gate_not_activated(_: Function) -> Function:
    def gate(h: Array, layer_input: Array, weight: Array, ar: Arithmetic) -> Array:
        return ar.linear(h, weight) * layer_input

    return gate


@AREA.mutant(
    "ple-gelu-after-product",
    replaces="oracle.ple.gate",
    does="Multiplies gate and PLE slice first and activates the product.",
    symptom="The branch is never far below zero.",
    cure="Activate the gate alone, then multiply by the slice.",
    first_tap=_GATED,
)
def _gelu_after_product(_: Function) -> Function:
    def gate(h: Array, layer_input: Array, weight: Array, ar: Arithmetic) -> Array:
        return mlp.gelu_tanh(ar.linear(h, weight) * layer_input, ar)

    return gate


AREA.mutant(
    "ple-post-norm-missing",
    replaces="oracle.decoder.Decoder._norm",
    does="Adds the PLE branch to the stream as it leaves its projection, without post_per_layer_input_norm.",
    symptom="The branch's size follows the gate's; it should follow the norm's weight.",
    cure="Normalise per_layer_projection's output before it is added.",
    first_tap="post_per_layer_input_norm",
)(without_norm("post_per_layer_input_norm"))


@AREA.mutant(
    "ple-before-mlp",
    replaces="oracle.decoder.Decoder.layer",
    does="Adds the PLE branch between attention and feed-forward.",
    symptom="Attention is right, the feed-forward's input is not.",
    cure="The PLE branch comes last: behind the feed-forward's residual, before layer_scalar.",
    first_tap="pre_feedforward_layernorm",
)
def _before_mlp(right: Function) -> Function:
    def layer(
        self: Decoder, index: int, *args: Array, layer_input: Array | None, **named: Any
    ) -> tuple[Array, KeyValues]:
        if layer_input is None:
            return right(self, index, *args, layer_input=None, **named)

        def early(feed_forward: Function) -> Function:
            def branches(self: Decoder, index: int, h: Array, tap: Recorder) -> Array:
                branch = self._per_layer_branch(index, h, layer_input, tap)
                return branch + feed_forward(self, index, h + branch, tap)

            return branches

        with replaced("oracle.decoder.Decoder._feed_forward", early):
            return right(self, index, *args, layer_input=None, **named)

    return layer
