"""Bridges: taps that a port does not offer, and that a prediction has to compute on its way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from conformance.judging.routing import TapLike
from gemma4_contract.graph import text_graph


def bridges(taps: Sequence[TapLike], offered: Collection[str]) -> Mapping[str, frozenset[str]]:
    """Tap -> the taps that its prediction goes through because the port does not offer them; `taps` in execution order.

    A tap that only some plans ask (`plans: no-cache` in the graph) is no bridge: in all other plans everybody's
    prediction goes through it, and the local floors hold that.
    """
    found: dict[str, frozenset[str]] = {}
    for tap in taps:
        through: set[str] = set()
        for parent in used_parents(tap, offered):
            if parent not in offered:
                through |= found.get(parent, frozenset())
                if text_graph().is_asked(parent, plain=False):
                    through.add(parent)
        found[tap.name] = frozenset(through)
    return found


def used_parents(tap: TapLike, offered: Collection[str]) -> Iterator[str]:
    """The parents that a tap is computed from; one that acts through an offered parent is not needed beside it."""
    graph = text_graph()
    stand_ins = graph.stand_ins(tap.name)
    known = {node.tap for parent in tap.parents if parent in offered and (node := graph.node_of(parent)) is not None}
    for parent in tap.parents:
        node = graph.node_of(parent)
        if node is None or stand_ins.get(node.tap) not in known:
            yield parent
