"""The graph: the forward pass as data, one node for each tap (`fixtures/graph/<kind>.json`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from gemma4_contract.documents import Document, default_root, read_model
from gemma4_contract.layout import row_axis
from gemma4_contract.node import Entry, Function, Letter, Node, Part, PassInput

FOLDER = "graph"
TEXT = "gemma4-text"
_LAYER_NUMBER = re.compile(r"(?<=\.)(0|[1-9][0-9]*)(?=\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a full name stands in the graph: its node, and its layer; None outside the layers."""

    node: Node
    layer: int | None


class Graph(Document):
    """The forward pass of one kind of model, its nodes in execution order (`graph/<kind>.json`)."""

    kind: str = Field(pattern=r"^[a-z0-9-]+$")
    does: str
    letters: list[Letter]
    layers: dict[str, str] = Field(description="What stands for a layer in names -> which layer it is.")
    conditions: dict[str, str] = Field(
        description="Word of a `when` -> where it holds. Every other `when` is a configuration field: set and not 0."
    )
    functions: list[Function]
    inputs: list[PassInput]
    entry: Entry
    parts: list[Part]
    nodes: list[Node]

    @classmethod
    def read(cls, path: Path) -> Graph:
        """A graph from its file; FixtureError naming the key at fault."""
        return read_model(path, cls)

    @model_validator(mode="after")
    def _names_are_declared(self) -> Graph:
        for got, known, what in _references(self):
            if missing := sorted(got - known):
                raise ValueError(f"{what} {', '.join(missing)}: not declared in this graph")
        return self

    @functools.cached_property
    def by_template(self) -> Mapping[str, Node]:
        """The nodes by the template of their tap."""
        return {node.tap: node for node in self.nodes}

    @functools.cached_property
    def after_layers(self) -> frozenset[str]:
        """The taps that come after the layers."""
        last = max((place for place, node in enumerate(self.nodes) if node.in_layers), default=-1)
        return frozenset(node.tap for node in self.nodes[last + 1 :])

    def place_of(self, tap: str) -> Place | None:
        """The node and layer of a tap's full name; None for a name that is no tap of this graph."""
        if tap not in self.places:
            number = _LAYER_NUMBER.search(tap)
            node = self.by_template.get(_LAYER_NUMBER.sub("{i}", tap, count=1))
            if node is None or node.in_layers != (number is not None):
                self.places[tap] = None
            else:
                self.places[tap] = Place(node=node, layer=None if number is None else int(number[0]))
        return self.places[tap]

    @functools.cached_property
    def places(self) -> dict[str, Place | None]:
        """The names that were asked for so far: a run asks for the same ones over and over."""
        return {}

    def node_of(self, tap: str) -> Node | None:
        """The node of a tap's full name; None for a name that is no tap, such as those of module cases."""
        place = self.place_of(tap)
        return None if place is None else place.node

    def layer_of(self, tap: str) -> int | None:
        """The layer of a tap's full name; None for a tap outside the layers, and for a name that is no tap."""
        place = self.place_of(tap)
        return None if place is None else place.layer

    def length_axis(self, tap: str) -> int:
        """Which axis of a tap counts the tokens; KeyError for a name that is no tap."""
        node = self.node_of(tap)
        axis = None if node is None else row_axis(node.axes.split())
        if axis is None:
            raise KeyError(tap)
        return axis

    def mixes_rows(self, tap: str) -> bool:
        """Whether a row of the tap depends on rows before it; False for a name that is no tap."""
        node = self.node_of(tap)
        return node is not None and node.rows == "mixes"

    def stand_ins(self, tap: str) -> Mapping[str, str]:
        """Parents of a tap that act through another parent, and that one, both as templates; empty for no tap."""
        node = self.node_of(tap)
        return {} if node is None else self._stand_ins[node.tap]

    @functools.cached_property
    def _stand_ins(self) -> Mapping[str, Mapping[str, str]]:
        return {
            node.tap: {_in_any_layer(one.tap): _in_any_layer(one.through) for one in node.sources if one.through}
            for node in self.nodes
        }

    def is_asked(self, tap: str, *, plain: bool) -> bool:
        """Whether the tap is asked in a plan; a `plain` one is one call without a cache and without pads."""
        return plain or (node := self.node_of(tap)) is None or node.plans == "every"


def _references(graph: Graph) -> list[tuple[set[str], set[str], str]]:
    """Names that are used, names that are declared, and what they are."""
    sources = {source.tap for node in graph.nodes for source in node.sources} | {graph.entry.first_layer}
    taps = {node.tap for node in graph.nodes}
    shapes = {node.axes for node in graph.nodes} | {node.huggingface.axes or "" for node in graph.nodes}
    shapes |= {weight.shape for node in graph.nodes for weight in node.weights} | {one.axes for one in graph.inputs}
    letters = {letter for shape in shapes for letter in re.findall(r"[A-Z]+", shape)}
    return [
        ({_in_any_layer(source) for source in sources}, taps | {one.name for one in graph.inputs}, "inputs"),
        (set(re.findall(r"\{[^}]*\}", " ".join(sources | taps))), set(graph.layers), "layers"),
        (letters, {one.letter for one in graph.letters}, "letters"),
        ({node.function for node in graph.nodes}, {one.function for one in graph.functions}, "functions"),
        ({node.part for node in graph.nodes}, {one.part for one in graph.parts}, "parts"),
    ]


def _in_any_layer(template: str) -> str:
    """A name's template, whichever layer it names."""
    return re.sub(r"\{[^}]*\}", "{i}", template)


@functools.cache
def text_graph() -> Graph:
    """The graph of the text decoder, as the installed fixtures hold it."""
    return Graph.read(text_graph_file())


def text_graph_file() -> Path:
    """Its file."""
    return default_root() / FOLDER / f"{TEXT}.json"
