"""Applies the graph to one configuration: its taps, their parents and axes, its weights and their shapes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from gemma4_contract.graph import Graph
from gemma4_contract.models import TapClass
from gemma4_contract.node import Node


class Facts(Protocol):
    """The fields of a configuration that the graph depends on."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def num_hidden_layers(self) -> int: ...

    @property
    def num_attention_heads(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def vocab_size_per_layer_input(self) -> int: ...

    @property
    def hidden_size_per_layer_input(self) -> int: ...

    @property
    def enable_moe_block(self) -> bool: ...

    @property
    def num_experts(self) -> int | None: ...

    @property
    def moe_intermediate_size(self) -> int | None: ...

    def is_kv_shared(self, layer: int, /) -> bool: ...

    def kv_donor(self, layer: int, /) -> int: ...

    def k_eq_v(self, layer: int, /) -> bool: ...

    def head_dim_of(self, layer: int, /) -> int: ...

    def kv_heads_of(self, layer: int, /) -> int: ...

    def mlp_width_of(self, layer: int, /) -> int: ...


CONDITIONS: Mapping[str, Callable[[Facts, int], bool]] = {
    "own_kv": lambda config, layer: not config.is_kv_shared(layer),
    "k_eq_v": lambda config, layer: config.k_eq_v(layer),
    "v_proj": lambda config, layer: not config.k_eq_v(layer),
    "moe": lambda config, layer: config.enable_moe_block,  # noqa: ARG005 (of the model, not of a layer)
    "dense": lambda config, layer: not config.enable_moe_block,  # noqa: ARG005
}
"""The words of `when`; every other `when` is a field of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """A named point of a forward pass, the taps that it is computed from, and how it is judged."""

    name: str
    axes: tuple[str, ...]
    parents: tuple[str, ...]
    cls: TapClass = "floor"


def taps(graph: Graph, config: Facts) -> list[Tap]:
    """Every tap of a forward pass, in execution order."""
    return [_tap(graph, node, config, layer) for node, layer in nodes_of(graph, config)]


def nodes_of(graph: Graph, config: Facts) -> Iterator[tuple[Node, int | None]]:
    """The nodes that a configuration has, in execution order, with their layers; None outside the layers."""
    for in_layers, group in itertools.groupby(graph.nodes, lambda node: node.in_layers):
        nodes = list(group)
        for layer in range(config.num_hidden_layers) if in_layers else (None,):
            yield from ((node, layer) for node in nodes if holds(node.when, config, layer))


def _tap(graph: Graph, node: Node, config: Facts, layer: int | None) -> Tap:
    sources = (source for source in node.sources if holds(source.when, config, layer))
    of_pass = {one.name for one in graph.inputs}
    return Tap(
        name=node.named(layer),
        axes=tuple(node.axes.split()),
        parents=tuple(named(graph, source.tap, config, layer) for source in sources if source.tap not in of_pass),
        cls=node.cls,
    )


def holds(when: str | None, config: Facts, layer: int | None) -> bool:
    """Whether a condition holds in a layer; `layer` is None outside the layers."""
    if when is None:
        return True
    return CONDITIONS[when](config, layer or 0) if when in CONDITIONS else bool(getattr(config, when))


def named(graph: Graph, template: str, config: Facts, layer: int | None) -> str:
    """The full name that a template stands for in a layer."""
    if layer is None:
        return template.replace("{last}", str(config.num_hidden_layers - 1))
    if template == graph.entry.tap:
        return entering(graph, layer)
    donor = config.kv_donor(layer) if "{donor}" in template else layer
    return template.replace("{i}", str(layer)).replace("{donor}", str(donor))


def entering(graph: Graph, layer: int) -> str:
    """The tap that enters a layer; for layer N it is the output of the last layer."""
    return graph.entry.tap.replace("{i-1}", str(layer - 1)) if layer else graph.entry.first_layer


def weight_shapes(graph: Graph, config: Facts) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the state dict, the tied head once, in the order of the nodes that use them."""
    found: dict[str, tuple[int, ...]] = {}
    letters = functools.cache(functools.partial(sizes, config))  # the same for all nodes of a layer
    for node, layer in nodes_of(graph, config):
        for weight in node.weights:
            if holds(weight.when, config, layer):
                shape = tuple(size_of(axis, letters(layer)) for axis in weight.shape.split())
                found.setdefault(named(graph, weight.name, config, layer), shape)
    return found


def sizes(config: Facts, layer: int | None) -> dict[str, int]:
    """Letter -> size, for all letters but B, L and S; E, K and F only in a layer."""
    found = {
        "D": config.hidden_size,
        "H": config.num_attention_heads,
        "P": config.hidden_size_per_layer_input,
        "N": config.num_hidden_layers,
        "V": config.vocab_size,
        "T": config.vocab_size_per_layer_input,
        "X": config.num_experts or 0,
        "M": config.moe_intermediate_size or 0,
    }
    if layer is not None:
        found |= {"E": config.head_dim_of(layer), "K": config.kv_heads_of(layer), "F": config.mlp_width_of(layer)}
    return found


def size_of(axis: str, letters: Mapping[str, int]) -> int:
    """How many entries an axis has: a letter, a number, or a product of them."""
    return math.prod(int(factor) if factor.isdigit() else letters[factor] for factor in axis.split("*"))
