"""Mistakes in layer_scalar, the one number that a layer's output is multiplied by.

Shape letters: B batch, L query length, D hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.mutants.mutant import Function, replaced
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.taps import Recorder, scoped, silent

AREA = Area("layer scalar")

_SCALAR = "layer_scalar"
_WEIGHT = "oracle.decoder.Decoder._weight"


@AREA.mutant(
    "layer-scalar-dropped",
    replaces=_WEIGHT,
    does="Never multiplies a layer's output by its layer_scalar.",
    symptom="The stream outgrows its branches and overflows float16 halfway; fresh models, scaled by 1, are right.",
    cure="h = h * layer_scalar, last in every layer.",
    first_tap="output",
    links=("cloudrift-ai/emmy#371", "huggingface/candle@ec39308f3"),
)
def _dropped(right: Function) -> Function:
    def weight(self: Decoder, index: int, name: str) -> Array:
        value = right(self, index, name)
        return np.ones_like(value) if name == _SCALAR else value

    return weight


@AREA.mutant(
    "layer-scalar-full-only",
    replaces=_WEIGHT,
    does="Loads layer_scalar on full-attention layers alone; on sliding ones it is 1.",
    symptom="Sliding layers' outputs are off by a constant factor.",
    cure="Every layer has a layer_scalar.",
    first_tap="output",
    layers="sliding layers",
    links=("Blaizzy/mlx-vlm#890",),
)
def _full_only(right: Function) -> Function:
    def weight(self: Decoder, index: int, name: str) -> Array:
        value = right(self, index, name)
        return np.ones_like(value) if name == _SCALAR and self.config.is_sliding(index) else value

    return weight


@AREA.mutant(
    "layer-scalar-twice",
    replaces=_WEIGHT,
    does="Multiplies by layer_scalar twice.",
    symptom="Every layer's output is off by its own constant factor.",
    cure="Multiply once, behind the last branch.",
    first_tap="output",
    links=("trymirai/uzu#459",),
)
def _twice(right: Function) -> Function:
    def weight(self: Decoder, index: int, name: str) -> Array:
        value = right(self, index, name)
        return value * value if name == _SCALAR else value

    return weight


@AREA.mutant(
    "layer-scalar-before-ple",
    replaces="oracle.decoder.Decoder.layer",
    does="Multiplies by layer_scalar before the PLE branch, which reads the scaled stream and is added unscaled.",
    symptom="E2B and E4B alone are wrong: the branch weighs 1 / layer_scalar times too much.",
    cure="The scalar comes last, behind the PLE branch.",
    first_tap="ple_gated",
    links=("quantumaikr/quant.cpp#96",),
)
def _before_ple(right: Function) -> Function:
    def layer(
        self: Decoder, index: int, *args: Array, layer_input: Array | None, record: Recorder = silent, **named: Any
    ) -> tuple[Array, KeyValues]:
        if layer_input is None:
            return right(self, index, *args, layer_input=None, record=record, **named)
        tap = scoped(record, f"model.layers.{index}.")

        def inner(name: str, value: Array) -> None:
            if not name.endswith(".output"):
                record(name, value)

        h, attended = right(self, index, *args, layer_input=None, record=inner, **named)
        h = h + self._per_layer_branch(index, h, layer_input, tap)
        tap("output", h)
        return h, attended

    return layer


@AREA.mutant(
    "layer-scalar-on-branch",
    replaces="oracle.decoder.Decoder.layer",
    does="Multiplies the feed-forward's branch by layer_scalar, as LayerScale does, and never the stream.",
    symptom="The stream grows from layer to layer.",
    cure="Multiply the whole stream, the residual included.",
    first_tap="residual_2",
    links=("quantumaikr/quant.cpp#96",),
)
def _on_branch(right: Function) -> Function:
    def layer(self: Decoder, index: int, *args: Array, **named: Any) -> tuple[Array, KeyValues]:
        scalar = self._weight(index, _SCALAR)

        def scaled(feed_forward: Function) -> Function:
            return lambda *inner: feed_forward(*inner) * scalar

        with replaced("oracle.decoder.Decoder._feed_forward", scaled), replaced(_WEIGHT, _dropped):
            return right(self, index, *args, **named)

    return layer
