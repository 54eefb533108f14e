"""Facts about a tap from the graph, the cases, the catalogue of mistakes and the source code."""

from __future__ import annotations

import ast
import difflib
import functools
import re
import textwrap
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conformance.adapters.registry import BadOption
from conformance.reporting.node_words import condition, judged, shown_by, source, stored_part, weight
from gemma4_contract import Fixtures
from gemma4_contract.graph import Graph, Place
from gemma4_contract.node import HuggingFace, Input, Node, Weight
from reference.mutants import MUTANTS

Facts = Mapping[str, Any]

COMPUTED_IN = ("reference.oracle", "mlx_impl")
"""Packages that compute the taps; each passes a tap with its name to a recorder."""
_LABEL, _SHOWN = 12, 3


def place_of(graph: Graph, name: str) -> Place:
    """The node of a full name, a name below its layer, or a template; for others BadOption with the nearest names."""
    if (place := graph.place_of(name)) is not None:
        return place
    known = {node.short: node for node in graph.nodes} | {node.tap: node for node in graph.nodes}
    if name not in known:
        below_layer = re.sub(r"^model\.layers\.[^.]*\.", "", name)
        spoken = {node.short.rpartition(".")[2]: node.short for node in graph.nodes}
        spoken |= {node.short: node.short for node in graph.nodes}
        near = list(dict.fromkeys(spoken[one] for one in difflib.get_close_matches(below_layer, spoken, n=3)))
        hint = f"did you mean {' or '.join(near)}?" if near else "see `gemma4-conformance graph`"
        raise BadOption(f"explain: got {name!r}, expected the name of a tap; {hint}")
    return Place(node=known[name], layer=None)


def facts(graph: Graph, fixtures: Fixtures, place: Place) -> Facts:
    """Facts about a tap, as JSON."""
    node = place.node
    functions = {one.function: one for one in graph.functions}
    formulas = f"{node.formula} {functions[node.function].formula}"
    used = [name for name in functions if re.search(rf"\b{name}\(", formulas)]
    letters = set(re.findall("[A-Z]", " ".join((node.axes, *(weight.shape for weight in node.weights)))))
    return {
        "tap": node.tap if place.layer is None else node.named(place.layer),
        "does": node.does,
        "formula": node.formula,
        "latex": node.latex,
        "function": node.function,
        "functions": [functions[name].model_dump(exclude_none=True) for name in dict.fromkeys((node.function, *used))],
        "axes": node.axes,
        "letters": {one.letter: one.model_dump(exclude={"letter"}) for one in graph.letters if one.letter in letters},
        "when": node.when,
        "inputs": [source.model_dump(exclude_none=True) for source in node.sources],
        "weights": [weight.model_dump(exclude_none=True) for weight in node.weights],
        "config": node.config,
        "class": node.cls,
        "rows": node.rows,
        "plans": node.plans,
        "huggingface": node.huggingface.model_dump(exclude_none=True),
        "stored": node.stored,
        "cases": _cases(graph, fixtures, node),
        "mistakes": [
            {"id": mutant.id, "does": mutant.does, "layers": mutant.layers}
            for mutant in MUTANTS.values()
            if {node.short, node.tap}.intersection(mutant.first_tap.split(" or "))
        ],
        "computed": {package: [f"{path}:{line}" for path, line in _places(package, node)] for package in COMPUTED_IN},
    }


def _cases(graph: Graph, fixtures: Fixtures, node: Node) -> dict[str, list[str]]:
    """Kind -> ids of the cases that ask for the tap, or for its function without a model."""
    kinds = {kind for one in graph.functions if one.function == node.function for kind in one.kinds}
    found: dict[str, list[str]] = {}
    for case in fixtures.cases():
        asked = (graph.node_of(tap.name) for tap in fixtures.taps(case))
        if case.kind in kinds or any(one is node for one in asked):
            found.setdefault(case.kind, []).append(case.id)
    return dict(sorted(found.items(), key=lambda item: item[0] not in kinds))  # the cheapest first


def _places(package: str, node: Node) -> Iterator[tuple[str, int]]:
    """File and line of the calls in a package that name the tap."""
    for path, line, name in _shown(package):
        if name == node.short:
            yield path, line


@functools.cache
def _shown(package: str) -> list[tuple[str, int, str]]:
    """File, line and first text of every call of two arguments or more in a package, which is not imported."""
    spec = find_spec(package)
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    found = []
    for root in roots:
        top = root.parents[package.count(".")]
        for path in sorted(root.rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and len(call.args) > 1:
                    texts = [one.value for one in call.args if isinstance(one, ast.Constant)]
                    found += [(path.relative_to(top).as_posix(), call.lineno, str(text)) for text in texts]
    return found


def as_text(graph: Graph, facts: Facts, width: int) -> str:
    """A tap for a terminal of this width."""
    lines = [facts["tap"], *textwrap.wrap(facts["does"], width), ""]
    for label, values in _rows(graph, facts):
        for number, value in enumerate(values):
            lines += textwrap.wrap(
                value,
                width,
                initial_indent=f"{'' if number else label:<{_LABEL}}",
                subsequent_indent=" " * (_LABEL + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _rows(graph: Graph, facts: Facts) -> Iterator[tuple[str, list[str]]]:
    """Label and lines of each fact."""
    yield "formula", [facts["formula"]]
    yield "", [_function(one) for one in facts["functions"]]
    yield "axes", [facts["axes"], *(f"{letter}: {one['does']}" for letter, one in facts["letters"].items())]
    if facts["when"]:
        yield "only in", [condition(graph, facts["when"])]
    yield "made of", [source(graph, Input(**one)) for one in facts["inputs"]]
    yield "weights", [weight(graph, Weight(**one)) for one in facts["weights"]]
    fields = dict.fromkeys([*facts["config"], *(name for one in facts["letters"].values() for name in one["config"])])
    yield "config", [", ".join(fields)] if fields else []
    yield "judged", [judged(facts["class"], facts["rows"], facts["plans"])]
    yield "full size", [stored_part(facts["stored"])]
    yield "in modules", [shown_by(HuggingFace(**facts["huggingface"]))]
    yield "computed", [place for places in facts["computed"].values() for place in places]
    yield "cases", [_some(kind, ids) for kind, ids in facts["cases"].items()]
    yield "mistakes", [f"{one['id']} ({one['layers']}): {one['does']}" for one in facts["mistakes"]]


def _function(one: Mapping[str, Any]) -> str:
    precision = f" {one['precision']}" if "precision" in one else ""
    return f"{one['function']}: {one['formula']}. {one['does']}{precision}"


def _some(kind: str, ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{kind}: {', '.join(ids[:_SHOWN])}{more}"
