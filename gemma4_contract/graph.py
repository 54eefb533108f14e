"""The graph: the forward pass as data, one node for each tap (`fixtures/graph/<kind>.json`).

Names are templates: `{i}` is the layer at hand, `{i-1}` the layer before it, `{donor}` the layer whose keys and values
it uses, `{last}` the last layer. Axes and shapes are letters divided by spaces; `H*E` is one axis of H times E entries.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from gemma4_contract.documents import Document, Strict, default_root, read_model
from gemma4_contract.models import Kind, TapClass

FOLDER = "graph"
TEXT = "gemma4-text"
_LAYER_NUMBER = re.compile(r"(?<=\.)(0|[1-9][0-9]*)(?=\.)")


class Letter(Strict):
    """What a shape letter counts."""

    letter: str = Field(pattern=r"^[A-Z]$")
    does: str = Field(description="What the letter counts.")
    config: list[str] = Field(default=[], description="Configuration fields that decide its size; none for B, L and S.")


class Part(Strict):
    """A part of the forward pass, as docs and figures divide it."""

    part: str
    title: str
    does: str = Field(description="What a reader needs to know before its nodes.")


class Function(Strict):
    """A function that nodes apply, or that a formula uses."""

    function: str
    does: str
    formula: str
    latex: str
    precision: str | None = Field(
        default=None, description="What must be computed wider than the run's dtype, and where it is rounded."
    )
    kinds: list[Kind] = Field(default=[], description="Kinds of module cases that ask about it without a model.")


class PassInput(Strict):
    """An input of the whole pass, which is no tap."""

    name: str
    does: str
    axes: str
    dtype: Literal["I32", "U8"]


class Entry(Strict):
    """What enters a layer."""

    tap: str = Field(description="The output of the layer before.")
    first_layer: str = Field(description="What stands in its place in layer 0.")


class Input(Strict):
    """A tap, or an input of the pass, that a node is computed from."""

    tap: str
    when: str | None = Field(default=None, description="A condition: only there the node is computed from it.")
    through: str | None = Field(
        default=None,
        description="Another input of the node, which this one acts through and stands for where it is not asked.",
    )


class Weight(Strict):
    """A tensor of the state dict that a node multiplies by."""

    name: str = Field(description="As in Gemma4ForCausalLM's state dict.")
    shape: str
    when: str | None = Field(default=None, description="A condition: only there the node has this weight.")


class HuggingFace(Strict):
    """Where a module tree that keeps Hugging Face's names shows the tap."""

    module: str = Field(description="Path of the module; empty for the root.")
    at: Literal["input", "output", "call"] = Field(
        description="The module's first argument, what it returns, or a call that no hook on a module sees."
    )
    item: int | str | None = Field(
        default=None, description="Which item or attribute it is of an output that is no tensor; the first when null."
    )
    function: str | None = Field(default=None, description="The function that is called, for `call`.")
    axes: str | None = Field(default=None, description="Its layout there, where it is not the tap's.")
    note: str | None = None


class Node(Strict):
    """One tap: what it is, what it is computed from and how, and how it is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    tap: str
    part: str
    does: str = Field(description="One sentence.")
    formula: str = Field(description="Exact, in terms of inputs, weights, configuration fields and functions.")
    latex: str
    function: str
    inputs: list[str | Input] = Field(description="Taps and inputs of the pass, in the order of the function.")
    weights: list[Weight] = Field(default=[], description="In the order of the function.")
    config: list[str] = Field(default=[], description="Configuration fields that the function takes, sizes aside.")
    axes: str
    cls: TapClass = Field(alias="class", description="How the tap is judged.")
    when: str | None = Field(default=None, description="A condition: only there the node exists.")
    rows: Literal["own", "mixes"] = Field(
        description="Whether a row of L depends on its own row of the inputs alone, or also on rows before it."
    )
    plans: Literal["every", "no-cache"] = Field(
        description="In which plans it is asked; `no-cache` is one call without a cache and without pads."
    )
    huggingface: HuggingFace
    stored: dict[str, int] | None = Field(
        default=None,
        description="Of models at full size: how many entries of an axis are kept, all of the others. Null: nothing.",
    )

    @property
    def in_layers(self) -> bool:
        """Whether every layer has a tap of this node."""
        return "{i}" in self.tap

    @property
    def short(self) -> str:
        """The tap's name below its layer: `self_attn.q_rope`."""
        return self.tap.partition(".{i}.")[2] or self.tap

    @functools.cached_property
    def sources(self) -> tuple[Input, ...]:
        """The inputs, each in full."""
        return tuple(Input(tap=one) if isinstance(one, str) else one for one in self.inputs)


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

    def node_of(self, tap: str) -> tuple[Node, int | None] | None:
        """The node of a tap's full name, and its layer; None for a name that is no tap of this graph."""
        number = _LAYER_NUMBER.search(tap)
        node = self.by_template.get(_LAYER_NUMBER.sub("{i}", tap, count=1))
        if node is None or node.in_layers != (number is not None):
            return None
        return node, None if number is None else int(number[0])

    def layer_of(self, tap: str) -> int | None:
        """The layer of a tap's full name; None for a tap outside the layers, and for a name that is no tap."""
        found = self.node_of(tap)
        return None if found is None else found[1]


def _references(graph: Graph) -> list[tuple[set[str], set[str], str]]:
    """Names that are used, names that are declared, and what they are."""
    sources = {source.tap for node in graph.nodes for source in node.sources} | {graph.entry.first_layer}
    taps = {node.tap for node in graph.nodes}
    shapes = {node.axes for node in graph.nodes} | {node.huggingface.axes or "" for node in graph.nodes}
    shapes |= {weight.shape for node in graph.nodes for weight in node.weights} | {one.axes for one in graph.inputs}
    letters = {letter for shape in shapes for letter in re.findall(r"[A-Z]+", shape)}
    in_any_layer = {re.sub(r"\{[^}]*\}", "{i}", source) for source in sources}
    return [
        (in_any_layer, taps | {one.name for one in graph.inputs}, "inputs"),
        (set(re.findall(r"\{[^}]*\}", " ".join(sources | taps))), set(graph.layers), "layers"),
        (letters, {one.letter for one in graph.letters}, "letters"),
        ({node.function for node in graph.nodes}, {one.function for one in graph.functions}, "functions"),
        ({node.part for node in graph.nodes}, {one.part for one in graph.parts}, "parts"),
    ]


@functools.cache
def text_graph() -> Graph:
    """The graph of the text decoder, as the installed fixtures hold it."""
    return Graph.read(default_root() / FOLDER / f"{TEXT}.json")
