"""The nodes that are wrong by themselves, over all cases of a run: what else fails follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from conformance.judging.examine import CaseVerdict
from conformance.reporting.text import first_few
from gemma4_contract.graph import text_graph


@dataclass(slots=True, kw_only=True)
class WrongNode:
    """A node of the graph that fails given the port's own taps before it."""

    tap: str
    """Its template in the graph."""
    name: str
    """Its tap, below its layer."""
    layers: set[int] = field(default_factory=set)
    cases: set[str] = field(default_factory=set)
    ratio: float = 0.0
    """The largest error over tolerance; NaN never stands here, infinity may."""


def wrong_nodes(verdicts: Iterable[CaseVerdict]) -> list[WrongNode]:
    """The wrong nodes in execution order."""
    found: dict[str, WrongNode] = {}
    for verdict in verdicts:
        for tap in verdict.wrong_by_themselves:
            place = text_graph().place_of(tap.name)
            assert place is not None
            node = found.setdefault(place.node.tap, WrongNode(tap=place.node.tap, name=place.node.short))
            node.layers |= set() if place.layer is None else {place.layer}
            node.cases.add(verdict.case.id)
            node.ratio = max(node.ratio, math.inf if math.isnan(tap.ratio) else tap.ratio)
    return [found[tap] for tap in text_graph().by_template if tap in found]


def in_words(nodes: Sequence[WrongNode]) -> list[str]:
    """A line for each node; none if there is none."""
    if not nodes:
        return []
    heading = "wrong by themselves, given the port's own taps before them; what else fails follows:"
    return [heading, *first_few([f"  {_line(node)}" for node in nodes])]


def _line(node: WrongNode) -> str:
    layers = f" in layers {_ranges(sorted(node.layers))}" if node.layers else ""
    cases = "1 case" if len(node.cases) == 1 else f"{len(node.cases)} cases"
    return f"{node.name}{layers}: {cases}, up to {node.ratio:.3g} tolerances"


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as ranges: 0-3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
