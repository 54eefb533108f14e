"""The taps of a configuration, from the graph, and the functions that record them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from gemma4_contract import expand
from gemma4_contract.expand import Tap
from gemma4_contract.graph import text_graph
from gemma4_contract.tensors import Array
from reference.config import TextConfig

__all__ = ["Recorder", "Tap", "closed", "layer_taps", "model_taps", "output_of", "scoped", "silent"]

Recorder = Callable[[str, Array], Array]
"""Called with each tap's full name and tensor; the forward pass continues with the tensor that it returns."""


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
    """The taps with only those parents that are among them; the inputs of a case replace the others."""
    names = {tap.name for tap in taps}
    return [replace(tap, parents=tuple(parent for parent in tap.parents if parent in names)) for tap in taps]


def output_of(layer: int) -> str:
    """The tap that enters a layer: the previous layer's output, or the embedding; for layer N the last output."""
    return expand.entering(text_graph(), layer)
