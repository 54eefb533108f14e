"""A case before it has a golden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemma4_contract import Plan
from gemma4_contract.models import Level, TapClass
from gemma4_contract.tensors import Array
from reference.taps import Tap


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAnswer:
    """The answer of a port with a known slip at a tap, and the advice to it."""

    tap: str
    slip: str
    answer: Array
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Inputs and description of a case; `taps` in execution order, `pointer` if another case owns the golden."""

    id: str
    kind: str
    purpose: str
    taps: Sequence[Tap]
    level: Level
    topic: str
    """Its topic: the test file of the suite that asks it."""
    model: str | None = None
    profiles: tuple[str, ...] = ()
    """The profiles that are asked; all if empty."""
    exact_in: str | None = None
    """The profile in whose arithmetic the golden is computed; answers must equal it to the bit."""
    exact: bool = False
    """Whether answers in every profile must equal the golden to the bit."""
    lookalikes: list[WrongAnswer] = field(default_factory=list)
    advice: str | None = None
    """The advice to a port whose answer is not finite, which does not fail."""
    inputs: Mapping[str, Array] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    plan_name: str | None = None
    """The plan in a word."""
    pointer: tuple[str, int] | None = None
    """(case id, rows): the golden is the first `rows` rows of that case's."""

    @property
    def owner(self) -> str:
        """Id of the case that stores the golden."""
        return self.pointer[0] if self.pointer else self.id


def tap(name: str, axes: str, *parents: str, cls: TapClass = "floor") -> Tap:
    """A module case's tap; axes as one string, "B L D"."""
    return Tap(name=name, axes=tuple(axes.split()), parents=parents, cls=cls)
