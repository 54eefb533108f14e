"""From a checkpoint's directory to what the oracle runs on: its configuration, and exactly the tensors of it."""

from __future__ import annotations

import functools
from pathlib import Path

from gemma4_contract import checkpoint
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.weights import tensor_shapes


@functools.cache
def config_of(directory: Path) -> TextConfig:
    """The configuration of an ordinary checkpoint."""
    return TextConfig.from_dict(checkpoint.read_config(directory))


def load(directory: Path) -> tuple[TextConfig, dict[str, Array]]:
    """Read an ordinary checkpoint; ValueError or FixtureError for one that is not whole or holds too much."""
    config = TextConfig.from_dict(checkpoint.read_config(directory))
    return config, checked(checkpoint.read_weights(directory), config)


def checked(weights: dict[str, Array], config: TextConfig) -> dict[str, Array]:
    """The weights themselves; ValueError naming the first that is missing, unexpected or misshapen.

    Keys and values of KV-shared layers are no fault: Google's files carry them, and no layer reads them.
    """
    needed, allowed = tensor_shapes(config), tensor_shapes(config, redundant_shared_kv=True)
    for name, shape in needed.items():
        if name not in weights:
            raise ValueError(f"{name}: got no such tensor, expected shape {shape}")
    for name, value in weights.items():
        if name not in allowed:
            raise ValueError(f"{name}: got a tensor, expected none of that name")
        if value.shape != allowed[name]:
            raise ValueError(f"{name}: got shape {value.shape}, expected {allowed[name]}")
    return weights
