"""Reads an ordinary Gemma 4 checkpoint from disk, in every layout that is in circulation.

D hidden, F feed-forward width, X experts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from gemma4_contract import tensors
from gemma4_contract.errors import FixtureError
from gemma4_contract.tensors import Array, Stored

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PREFIXES: Final = ("model.language_model.", "language_model.model.")
TOWERS: Final = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "vision_embedder.")
SPLIT_EXPERTS: Final = ".experts.switch_glu."
_HEAD = re.compile(r"(model\.)?(language_model\.)?lm_head\.")
_ROTARY_BUFFER = re.compile(r"\.rotary_emb\.\w*inv_freq$")
_CURE = "download it again"
_Tensor = TypeVar("_Tensor")


def read_config(directory: Path) -> dict[str, Any]:
    """The content of config.json; FixtureError if it is missing or not a JSON object."""
    return _json_object(directory / "config.json")


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config.json about the text decoder: `text_config` if there is one, or else all of it."""
    return dict(config.get("text_config") or config)


def parts(directory: Path) -> Iterator[Path]:
    """All files of a checkpoint, each before the files that it names."""
    yield directory / "config.json"
    if _is_sharded(directory):
        yield directory / INDEX
    yield from files(directory)


def files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the single one, or else the shards that the index names."""
    if not _is_sharded(directory):
        return [directory / SINGLE]
    index = directory / INDEX
    weight_map = _json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FixtureError(index, got="no weight_map", expected="tensor name -> file", cure=_CURE)
    return [directory / shard for shard in sorted(set(weight_map.values()))]


def text_name(name: str) -> str | None:
    """A tensor's name in Gemma4ForCausalLM's state dict.

    None for a tensor that a text decoder leaves out: other modalities, RoPE's buffers, and the head, which is tied.
    """
    if name.removeprefix("model.").startswith(TOWERS) or _ROTARY_BUFFER.search(name) or _HEAD.match(name):
        return None
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name


def fuse_experts(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Weights with the experts of mlx-community's layout fused: `gate_up_proj` [X, 2F, D], gate first; `down_proj`."""
    fused = {name: value for name, value in weights.items() if SPLIT_EXPERTS not in name}
    for layer in sorted({name.partition(SPLIT_EXPERTS)[0] for name in weights.keys() - fused.keys()}):
        gate, up, fused[f"{layer}.experts.down_proj"] = (
            _part(weights, f"{layer}{SPLIT_EXPERTS}{part}_proj.weight") for part in ("gate", "up", "down")
        )
        fused[f"{layer}.experts.gate_up_proj"] = np.concatenate([gate, up], axis=1)  # two of [X, F, D]
    return fused


def _part(weights: Mapping[str, Array], name: str) -> Array:
    if name not in weights:
        raise ValueError(f"{name}: got no such tensor, expected gate, up and down of every layer's experts")
    return weights[name]


def text_weights(directory: Path) -> dict[str, Array]:
    """The text decoder's tensors by their names in the state dict; experts keep the layout of the file."""
    return collect(directory, files(directory), tensors.read, text_name)


def text_tensors(directory: Path) -> dict[str, Stored]:
    """The same as `text_weights`, but no tensor is read yet."""
    return collect(directory, files(directory), tensors.read_lazily, text_name)


def collect(
    directory: Path,
    shards: Iterable[Path],
    read: Callable[[Path], Mapping[str, _Tensor]],
    rename: Callable[[str], str | None],
) -> dict[str, _Tensor]:
    """The tensors of a directory's shards under other names, without those that `rename` gives None.

    FixtureError when two tensors come to have one name.
    """
    found: dict[str, _Tensor] = {}
    for shard in shards:
        for name, value in read(shard).items():
            text = rename(name)
            if text in found:
                raise FixtureError(directory, got=f"a second tensor for {text}", expected="one", cure=f"remove {name}")
            if text is not None:
                found[text] = value
    return found


def _is_sharded(directory: Path) -> bool:
    return not (directory / SINGLE).is_file() and (directory / INDEX).is_file()


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(tensors.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise FixtureError(path, got=f"no JSON ({error})", expected="a JSON object", cure=_CURE) from None
    if not isinstance(value, dict):
        raise FixtureError(path, got=f"a JSON {type(value).__name__}", expected="a JSON object", cure=_CURE)
    return value
