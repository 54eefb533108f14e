"""mlx_impl on an example: a tiny ordinary checkpoint, its own loader, a plan, every tap."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np

import mlx_impl
from gemma4_contract import tensors
from gemma4_contract.layout import row_axis
from gemma4_contract.recording import Pieces
from gemma4_contract.tensors import Array
from reference.taps import model_taps
from tests.support.laws.configurations import Example, weights_of


def load(text_config: Mapping[str, Any], weights: Mapping[str, Array] | None = None) -> mlx_impl.Decoder:
    """A float32 decoder, loaded by mlx_impl from a checkpoint in bfloat16 (flat config, tensors under `model.`)."""
    weights = weights_of(text_config) if weights is None else weights
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = {**text_config, "architectures": ["Gemma4ForCausalLM"]}
        (directory / "config.json").write_text(json.dumps(config))
        stored = {name: weight.astype(ml_dtypes.bfloat16) for name, weight in weights.items()}
        tensors.write(directory / "model.safetensors", stored)
        return mlx_impl.load(directory)


def run(decoder: mlx_impl.Decoder, example: Example, inputs: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """Every tap under the example's plan, joined along L; the probabilities only from a single call."""
    given = example.inputs if inputs is None else inputs
    return run_steps(decoder, example, given, example.plan.steps)


def run_steps(
    decoder: mlx_impl.Decoder, example: Example, inputs: Mapping[str, Array], steps: Sequence[int] | None
) -> dict[str, Array]:
    """Every tap of `inputs` fed in `steps`."""
    pieces: Pieces[mx.array] = Pieces()
    caches = None if steps is None else decoder.make_caches()
    ids, positions = mx.array(inputs["ids"]), mx.array(inputs["positions"])
    valid = mx.array(inputs["valid"]).astype(mx.bool_) if "valid" in inputs else None
    start = 0
    for step in [ids.shape[1]] if steps is None else steps:
        rows = slice(start, start + step)
        decoder(
            ids[:, rows],
            positions[:, rows],
            valid=None if valid is None else valid[:, rows],
            caches=caches,
            tap=pieces,
        )
        start += step
    axes = {tap.name: tap.axes for tap in model_taps(example.config)}
    whole = {name: values for name, values in pieces.taps.items() if len(values) == 1 or "S" not in axes[name]}
    joined = {name: mx.concatenate(values, axis=row_axis(axes[name])) for name, values in whole.items()}
    mx.eval(joined)
    return {name: np.array(value) for name, value in joined.items()}


def answers(example: Example) -> dict[str, Array]:
    """Load and run."""
    return run(load(example.text_config), example)
