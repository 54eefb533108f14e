"""The graph as docs/FORWARD.md: the forward pass for people who write it."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.reporting.node_words import condition, shown_by, source, weight
from gemma4_contract.graph import Graph
from gemma4_contract.node import Function, Node, Part

_HEAD = """# The forward pass

![The forward pass](forward.svg)

What a port of Gemma 4's text decoder computes, in the order in which it computes it: write it from top to bottom, and
judge every tap as soon as it is there. Each heading is a tap, a tensor that the suite compares; below it stand its
axes, its formula, and all that goes into it. `reference/oracle/` is the same in code, and
`gemma4-conformance explain TAP` adds what this page leaves out: the cases that ask for a tap, the known mistakes that
are first seen there, and the lines of the oracle and of `mlx_impl` that compute it.

`fixtures/graph/gemma4-text.json` says all of this to programs. This page and its figure are made from it, by
`gemma4-conformance graph --markdown` and `--svg`."""


def as_markdown(graph: Graph) -> str:
    """The page."""
    return "\n".join([_HEAD, *_words(graph), *_parts(graph), *_functions(graph)]) + "\n"


def _words(graph: Graph) -> Iterator[str]:
    yield "\n## Words\n"
    yield "| letter | what it counts | fields of `text_config` |\n| --- | --- | --- |"
    for letter in graph.letters:
        yield f"| {letter.letter} | {letter.does} | {', '.join(f'`{field}`' for field in letter.config)} |"
    yield "\n`H*E` is one axis of H times E entries. Names inside a layer stand below `model.layers.{i}.`; in them:\n"
    yield from (f"* `{name}` is {does}." for name, does in graph.layers.items())
    yield f"\nWhat enters a layer is `{graph.entry.tap}`; what enters layer 0 is `{graph.entry.first_layer}`."
    yield "\nA pass has these inputs:\n"
    yield from (f"* `{one.name}` [{', '.join(one.axes.split())}] {one.dtype}: {one.does}" for one in graph.inputs)


def _functions(graph: Graph) -> Iterator[str]:
    yield "\n## Functions\n"
    yield "What is not said of precision below is computed in the dtype of the run."
    for one in graph.functions:
        yield from _function(one)


def _function(one: Function) -> Iterator[str]:
    yield f"\n### Function `{one.function}`\n\n{one.does}\n\n```math\n{one.latex}\n```\n\n* Formula: `{one.formula}`"
    if one.precision:
        yield f"* Precision: {one.precision}"
    if one.kinds:
        yield f"* Asked alone by cases of kind {', '.join(f'`{kind}`' for kind in one.kinds)}"


def _parts(graph: Graph) -> Iterator[str]:
    for part in graph.parts:
        yield from _part(graph, part)


def _part(graph: Graph, part: Part) -> Iterator[str]:
    yield f"\n## {part.title}\n\n{part.does}"
    for node in graph.nodes:
        if node.part == part.part:
            yield from _node(graph, node)


def _node(graph: Graph, node: Node) -> Iterator[str]:
    yield f"\n### `{node.short}` [{', '.join(node.axes.split())}]\n\n{node.does}\n\n```math\n{node.latex}\n```\n"
    yield f"* Formula: `{node.formula}`, by [`{node.function}`](#function-{node.function})"
    if node.when:
        yield f"* Only in {condition(graph, node.when)}"
    yield f"* Made of {'; '.join(_coded(source(graph, one)) for one in node.sources)}"
    if node.weights:
        yield f"* Weights {'; '.join(_coded(weight(graph, one)) for one in node.weights)}"
    if node.config:
        yield f"* Configuration {', '.join(f'`{field}`' for field in node.config)}"
    if node.rows == "mixes":
        yield "* A row depends on rows before it as well"
    if node.plans == "no-cache":
        yield "* Asked in one call without a cache and pads alone"
    yield f"* In transformers: {shown_by(node.huggingface)}"


def _coded(text: str) -> str:
    """The name at the head of a text as code."""
    name, space, rest = text.partition(" ")
    comma = "," if name.endswith(",") else ""
    return f"`{name.removesuffix(',')}`{comma}{space}{rest}"
