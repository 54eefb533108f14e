"""Models as ordinary checkpoints: config.json and safetensors in bfloat16 under the real tensor names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes

from gemma4_contract import checkpoint, tensors
from gemma4_contract.files import canonical_json, write_atomic
from reference import weights
from reference.models import Model
from reference.weights import Float64

PYTORCH_FORMAT = {"format": "pt"}
"""Metadata without which transformers refuses to open a checkpoint."""


def model_weights(model: Model) -> dict[str, Float64]:
    """Every tensor of a model by the rule, under its name in the state dict."""
    return weights.weights(model.id, model.config, mini=True, redundant_shared_kv=model.redundant_shared_kv)


def write_checkpoint(directory: Path, config: Mapping[str, Any], built: Mapping[str, Float64], shards: int = 1) -> None:
    """Write config.json and the tensors, in one file or in shards with an index."""
    write_atomic(directory / "config.json", canonical_json(config))
    stored = {name: value.astype(ml_dtypes.bfloat16) for name, value in built.items()}
    if shards == 1:
        write_atomic(directory / checkpoint.SINGLE, tensors.encode(stored, PYTORCH_FORMAT))
        return
    names = list(stored)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        write_atomic(directory / file, tensors.encode({name: stored[name] for name in part}, PYTORCH_FORMAT))
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(value.nbytes for value in stored.values())}, "weight_map": weight_map}
    write_atomic(directory / checkpoint.INDEX, canonical_json(index))
