"""Finds the rows of a mixture of experts that can be compared: the choice of experts is the golden's.

Where two router logits lie closer than rounding can tell, an honest implementation may choose the other expert, and
everything that is computed from that row then differs. Such rows are undecidable. A choice that differs although the
golden's margin is wide stays comparable, and fails by its value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gemma4_contract.graph import text_graph
from gemma4_contract.layout import row_axis
from gemma4_contract.models import TapClass
from gemma4_contract.routing import Experts
from gemma4_contract.tensors import Array


class TapLike(Protocol):
    """A tap as the graph knows it."""

    @property
    def name(self) -> str: ...

    @property
    def axes(self) -> Sequence[str]: ...

    @property
    def parents(self) -> Sequence[str]: ...

    @property
    def cls(self) -> TapClass: ...


NarrowRows = Callable[[str, Array], Array | None]
"""(tap of router logits, its golden margins [B, L]) -> where rounding may decide; None if nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A router's choice [B, L]: the golden's margins, and where an answer differs; None if it shows no choice."""

    margins: Array
    differs: Array | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparable:
    """The rows [B, L] of each tap that can be compared, and the first choice that cannot: (tap, row)."""

    rows: Mapping[str, Array]
    first_undecidable: tuple[str, int] | None

    @property
    def whole(self) -> set[str]:
        """The taps whose rows can all be compared."""
        return {name for name, kept in self.rows.items() if kept.all()}


def choices_of(experts: Mapping[str, Experts], answer: Mapping[str, Array]) -> dict[str, Choice]:
    """The choices of an answer at every row; `experts` are the golden's choices at each routing tap."""
    found = {}
    for tap, expected in experts.items():
        got = answer.get(tap)
        differs: Array | None = None
        if got is not None and got.shape == expected.chosen.shape:
            differs = np.not_equal(got != 0, expected.chosen).any(-1)
        found[tap] = Choice(margins=expected.margins, differs=differs)
    return found


def comparable_rows(
    taps: Sequence[TapLike],
    shapes: Mapping[str, Sequence[int]],
    choices: Mapping[str, Choice],
    narrow_rows: NarrowRows,
) -> Comparable:
    """The rows to compare of every tap with an axis B and one for the tokens; `taps` in execution order.

    A port that does not offer the routing tap shows no choice, so that all its narrow rows are undecidable.
    """
    rows: dict[str, Array] = {}
    first: tuple[str, int] | None = None
    for tap in taps:
        axis = row_axis(tap.axes)
        if "B" not in tap.axes or axis is None:
            continue
        shape = shapes[tap.name]
        kept = np.ones((shape[tap.axes.index("B")], shape[axis]), bool)
        for parent in tap.parents:
            kept = kept & rows.get(parent, True)
        if text_graph().mixes_rows(tap.name):
            kept = np.logical_and.accumulate(kept, axis=1)
        choice = choices.get(tap.name)
        if choice is not None and kept.any():
            narrow = narrow_rows(tap.parents[0], choice.margins)
            lost = kept if narrow is None else kept & narrow
            if narrow is not None and choice.differs is not None:
                lost = lost & choice.differs
            if lost.any() and first is None:
                first = (tap.name, int(np.argwhere(lost)[:, 1].min()))
            kept = kept & ~lost
        rows[tap.name] = kept
    return Comparable(rows=rows, first_undecidable=first)
