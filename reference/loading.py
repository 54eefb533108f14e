"""Loads a checkpoint for the oracle: its configuration, and exactly the tensors of the text decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from gemma4_contract import checkpoint, tensors
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.weights import tensor_shapes


@functools.cache
def config_of(directory: Path) -> TextConfig:
    """The configuration of an ordinary checkpoint."""
    return TextConfig.from_dict(checkpoint.read_config(directory))


def load(directory: Path) -> tuple[TextConfig, dict[str, Array]]:
    """Read an ordinary checkpoint; ValueError or FixtureError if tensors are missing or unexpected."""
    return Loader().load(directory)


class Loader:
    """An ordinary checkpoint read step by step; `config` is the class that reads its config.json.

    Every step is a method, because ports get each of them wrong: a mutant is a subclass with one step wrong.
    """

    def __init__(self, config: type[TextConfig] = TextConfig) -> None:
        self.config = config

    def load(self, directory: Path) -> tuple[TextConfig, dict[str, Array]]:
        """The configuration and exactly its tensors; ValueError or FixtureError as `load` raises them."""
        config = self.config.from_dict(checkpoint.read_config(directory))
        return config, self.checked(self.fuse_experts(self.text_weights(directory)), config)

    def text_weights(self, directory: Path) -> dict[str, Array]:
        """The text decoder's tensors by their names in the state dict, experts as the files hold them."""
        return checkpoint.collect(directory, self.files(directory), self.read, self.text_name)

    def files(self, directory: Path) -> list[Path]:
        """The safetensors files of the checkpoint."""
        return checkpoint.files(directory)

    def read(self, file: Path) -> dict[str, Array]:
        """The tensors of one file by their names in it."""
        return tensors.read(file)

    def text_name(self, name: str) -> str | None:
        """A tensor's name in the state dict; None for what a text decoder leaves out."""
        return checkpoint.text_name(name)

    def fuse_experts(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors with the experts of every layer as one `gate_up_proj` and one `down_proj`."""
        return checkpoint.fuse_experts(weights)

    def checked(self, weights: dict[str, Array], config: TextConfig) -> dict[str, Array]:
        """The weights, if they are those of the configuration."""
        return checked(weights, config)


def checked(weights: dict[str, Array], config: TextConfig) -> dict[str, Array]:
    """The weights themselves; ValueError naming the first that is missing, unexpected or misshapen.

    Keys and values of KV-shared layers are no fault: Google's files carry them, and no layer reads them.
    """
    needed = tensor_shapes(config)
    allowed = needed if weights.keys() <= needed.keys() else tensor_shapes(config, redundant_shared_kv=True)
    for name, shape in needed.items():
        if name not in weights:
            raise ValueError(f"{name}: got no such tensor, expected shape {shape}")
    for name, value in weights.items():
        if name not in allowed:
            raise ValueError(f"{name}: got a tensor, expected none of that name")
        if value.shape != allowed[name]:
            raise ValueError(f"{name}: got shape {value.shape}, expected {allowed[name]}")
    return weights
