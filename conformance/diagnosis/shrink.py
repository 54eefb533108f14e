"""Finds the smallest question that still fails: one module, else one layer, else the fewest tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from conformance.judging.examine import CaseVerdict
from conformance.judging.question import Question
from gemma4_contract import Case, Fixtures, GoldenPointer
from gemma4_contract.graph import text_graph

_SMALLER_FIRST = ("subgraph", "attention", "layer", "forward")
_MANY = 1000

StillFails = Callable[[str, int | None], bool]
"""Whether a case still fails when it is asked again, whole or cut to its first tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smallest:
    """A case, cut to its first `tokens` tokens if they are enough to fail."""

    case: str
    tokens: int | None


def smallest(fixtures: Fixtures, failing: Iterable[CaseVerdict], still_fails: StillFails | None) -> Smallest:
    """The smallest failing case, cut to the fewest tokens with which it still fails."""
    verdict = min(failing, key=_size)
    question = Question.of(fixtures, verdict.case.id)
    if still_fails is not None and question.can_be_shortened():
        for tokens in range(1, question.inputs["ids"].shape[1]):
            if still_fails(verdict.case.id, tokens):
                return Smallest(case=verdict.case.id, tokens=tokens)
    return Smallest(case=verdict.case.id, tokens=None)


def _size(verdict: CaseVerdict) -> tuple[int, int, int, str]:
    """Kind, layers up to the first divergence, tokens."""
    case = verdict.case
    tokens = case.golden.rows[1] if isinstance(case.golden, GoldenPointer) else _longest(case)
    return size_of_kind(case.kind), _layers(verdict), tokens, case.id


def size_of_kind(kind: str) -> int:
    """Modules before sub-graphs, attention, layers and whole passes."""
    return _SMALLER_FIRST.index(kind) + 1 if kind in _SMALLER_FIRST else 0


def _layers(verdict: CaseVerdict) -> int:
    """The number of layers up to the first divergence; a port that stops shows none."""
    names = [tap.name for tap in verdict.taps]
    if verdict.first_divergence is None:
        return _MANY
    until = names[: names.index(verdict.first_divergence.name) + 1]
    return len({text_graph().layer_of(name) for name in until} - {None})


def _longest(case: Case) -> int:
    """The longest L of a case's own golden."""
    return max((tap.shape[tap.axes.index("L")] for tap in case.taps if "L" in tap.axes), default=0)
