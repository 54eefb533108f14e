"""Mistakes in layer_scalar, the one number that a layer's output is multiplied by.

Shape letters: B batch, L query length, D hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.taps import Recorder, scoped, silent

AREA = Area("layer scalar", place=120)

_SCALAR = "layer_scalar"


@AREA.mutant(
    "layer-scalar-dropped",
    does="Never multiplies a layer's output by its layer_scalar.",
    symptom="The stream outgrows its branches and overflows float16 halfway; fresh models, scaled by 1, are right.",
    cure="h = h * layer_scalar, last in every layer.",
    first_tap="output",
    links=("cloudrift-ai/emmy#371", "huggingface/candle@ec39308f3"),
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Dropped(Decoder):
    def weight(self, index: int, name: str) -> Array:
        value = super().weight(index, name)
        return np.ones_like(value) if name == _SCALAR else value


@AREA.mutant(
    "layer-scalar-full-only",
    does="Loads layer_scalar on full-attention layers alone; on sliding ones it is 1.",
    symptom="Sliding layers' outputs are off by a constant factor.",
    cure="Every layer has a layer_scalar.",
    first_tap="output",
    layers="sliding layers",
    links=("Blaizzy/mlx-vlm#890",),
    caught_by=(
        "layer/e2b-mini/sliding-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _FullOnly(Decoder):
    def weight(self, index: int, name: str) -> Array:
        value = super().weight(index, name)
        return np.ones_like(value) if name == _SCALAR and self.config.is_sliding(index) else value


@AREA.mutant(
    "layer-scalar-twice",
    does="Multiplies by layer_scalar twice.",
    symptom="Every layer's output is off by its own constant factor.",
    cure="Multiply once, after the last branch.",
    first_tap="output",
    links=("trymirai/uzu#459",),
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Twice(Decoder):
    def weight(self, index: int, name: str) -> Array:
        value = super().weight(index, name)
        return value * value if name == _SCALAR else value


@AREA.mutant(
    "layer-scalar-before-ple",
    does="Multiplies by layer_scalar before the PLE branch, which reads the scaled stream and is added unscaled.",
    symptom="E2B and E4B alone are wrong: the branch weighs 1 / layer_scalar times too much.",
    cure="The scalar comes last, after the PLE branch.",
    first_tap="ple_gated",
    links=("quantumaikr/quant.cpp#96",),
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _BeforePLE(Decoder):
    def layer(
        self, index: int, *args: Array, layer_input: Array | None, record: Recorder = silent, **named: Any
    ) -> tuple[Array, KeyValues]:
        if layer_input is None:
            return super().layer(index, *args, layer_input=None, record=record, **named)
        tap = scoped(record, f"model.layers.{index}.")

        def all_but_output(name: str, value: Array) -> Array:
            return value if name.endswith(".output") else record(name, value)

        h, attended = super().layer(index, *args, layer_input=None, record=all_but_output, **named)
        return tap("output", h + self.per_layer_branch(index, h, layer_input, tap)), attended


@AREA.mutant(
    "layer-scalar-on-branch",
    does="Multiplies the feed-forward's branch by layer_scalar, as LayerScale does, and never the stream.",
    symptom="The stream grows from layer to layer.",
    cure="Multiply the whole stream, the residual included.",
    first_tap="residual_2",
    links=("quantumaikr/quant.cpp#96",),
    caught_by=(
        "layer/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _OnBranch(_Dropped):
    def feed_forward(self, index: int, h: Array, tap: Recorder) -> Array:
        return super().feed_forward(index, h, tap) * Decoder.weight(self, index, _SCALAR)
