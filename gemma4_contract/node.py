"""What a graph is made of: its nodes, and the words that they are written in.

Names are templates: `{i}` is the layer at hand, `{i-1}` the layer before it, `{donor}` the layer whose keys and values
it uses, `{last}` the last layer. Axes and shapes are letters divided by spaces; `H*E` is one axis of H times E entries.
"""

from __future__ import annotations

import functools
from typing import Literal

from pydantic import ConfigDict, Field

from gemma4_contract.documents import Strict
from gemma4_contract.models import Kind, TapClass


def below_layer(template: str) -> str:
    """A name in the layer at hand without its beginning; all others as they are."""
    return template.partition(".{i}.")[2] or template


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
        return below_layer(self.tap)

    def named(self, layer: int | None) -> str:
        """The tap's full name in a layer; None outside the layers."""
        return self.tap if layer is None else self.tap.replace("{i}", str(layer))

    @functools.cached_property
    def sources(self) -> tuple[Input, ...]:
        """The inputs, each in full."""
        return tuple(Input(tap=one) if isinstance(one, str) else one for one in self.inputs)
