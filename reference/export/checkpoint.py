"""Miniatures as ordinary checkpoints: config.json and model.safetensors in bfloat16 under the real tensor names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes

from reference import weights
from reference.format import tensors
from reference.format.files import canonical_json, write_atomic
from reference.models import Model
from reference.weights import Float64

PYTORCH_FORMAT = {"format": "pt"}
"""Metadata without which transformers refuses to open a checkpoint."""


def model_weights(model: Model) -> dict[str, Float64]:
    """Every tensor of a model by the rule, under its name in the state dict."""
    return weights.weights(model.id, model.config, mini=True, redundant_shared_kv=model.redundant_shared_kv)


def write_checkpoint(directory: Path, model: Model, built: Mapping[str, Float64]) -> None:
    """Write config.json and model.safetensors of a model."""
    stored = {
        name.replace("model.", model.tensor_prefix, 1): value.astype(ml_dtypes.bfloat16)
        for name, value in built.items()
    }
    write_atomic(directory / "config.json", canonical_json(model.config_json))
    write_atomic(directory / "model.safetensors", tensors.encode(stored, PYTORCH_FORMAT))
