"""Puts the short forms of the graph into words, for the command `explain` and for docs/FORWARD.md."""

from __future__ import annotations

from collections.abc import Mapping

from gemma4_contract.graph import Graph
from gemma4_contract.node import HuggingFace, Input, Weight, below_layer


def condition(graph: Graph, word: str) -> str:
    """The layers or models in which a `when` holds."""
    return graph.conditions.get(word, f"models with {word}, where it is set and not 0")


def source(graph: Graph, one: Input) -> str:
    """An input of a node, with the condition under which it is one."""
    through = f", through {below_layer(one.through)}" if one.through else ""
    return below_layer(one.tap) + through + _only(graph, one.when)


def weight(graph: Graph, one: Weight) -> str:
    """A weight with its shape, and the condition under which a node has it."""
    return f"{below_layer(one.name)} [{', '.join(one.shape.split())}]" + _only(graph, one.when)


def _only(graph: Graph, when: str | None) -> str:
    return f" ({condition(graph, when)})" if when else ""


def judged(cls: str, rows: str, plans: str) -> str:
    """Class, row rule and plans."""
    own = "a row depends on its own row alone" if rows == "own" else "a row depends on rows before it as well"
    asked = "asked in every plan" if plans == "every" else "asked in one call without a cache and pads alone"
    return f"{cls}; {own}; {asked}"


def stored_part(stored: Mapping[str, int] | None) -> str:
    """The part of it that goldens at full size store."""
    if stored is None:
        return "not stored"
    counts = ", ".join(f"{count} of {axis}" for axis, count in stored.items())
    return f"stored at chosen rows: {counts or 'all entries'}"


def shown_by(one: HuggingFace) -> str:
    """The module of transformers that shows it."""
    module = one.module or "the root"
    places = {
        "input": f"argument of {module}",
        "output": f"result of {module}" + (f" (item {one.item})" if one.item is not None else ""),
        "call": f"a call of {one.function} in {module}" if one.function else f"made from the result of {module}",
    }
    layout = f", laid out {one.axes}" if one.axes else ""
    return places[one.at] + layout + (f"; {one.note}" if one.note else "")
