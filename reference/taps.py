"""The taps of a configuration, as the graph has them, and what records them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from gemma4_contract import expand
from gemma4_contract.expand import Tap
from gemma4_contract.graph import text_graph
from reference.config import TextConfig

__all__ = ["Recorder", "Tap", "closed", "layer_taps", "model_taps", "output_of", "scoped", "silent"]

Array = npt.NDArray[Any]
Recorder = Callable[[str, Array], Array]
"""Called with a tap's full name and tensor as the forward pass reaches it, which goes on with what it returns."""


def silent(_name: str, value: Array) -> Array:
    """The recorder that records nothing."""
    return value


def scoped(record: Recorder, prefix: str) -> Recorder:
    """A recorder that puts `prefix` before every name."""
    return lambda name, value: record(prefix + name, value)


@functools.lru_cache(maxsize=64)
def model_taps(config: TextConfig) -> tuple[Tap, ...]:
    """Every tap of a forward pass, in execution order."""
    return tuple(expand.taps(text_graph(), config))


def layer_taps(config: TextConfig, layer: int) -> list[Tap]:
    """The taps of one layer, under their full names."""
    return [tap for tap in model_taps(config) if text_graph().layer_of(tap.name) == layer]


def closed(taps: list[Tap]) -> list[Tap]:
    """The same taps with those parents alone that are among them: the inputs of a case stand for the others."""
    names = {tap.name for tap in taps}
    return [replace(tap, parents=tuple(parent for parent in tap.parents if parent in names)) for tap in taps]


def output_of(layer: int) -> str:
    """The tap that enters a layer: the previous layer's output, or the embedding; of layer N the last output."""
    return expand.entering(text_graph(), layer)
