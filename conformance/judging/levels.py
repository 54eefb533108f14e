"""The levels of conformance: a level is reached only together with all levels below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gemma4_contract.models import Level

LEVELS: Mapping[Level, str] = {
    "L0": "smoke: files, weights by rule, products, sums, exp and tanh",
    "L1": "modules and single layers",
    "L2": "whole forward passes without a cache",
    "L3": "cache: one shot, chunks, token by token, batches",
    "L4": "prompts to the byte",
    "L5": "models at full size",
}
FULL_SIZE: Level = "L5"
"""This level stands alone: its models need weights that do not ship."""


class Leveled(Protocol):
    """A case, a question on prompts, or the verdict on one."""

    @property
    def level(self) -> Level: ...

    @property
    def model(self) -> str | None: ...


@dataclass(slots=True, kw_only=True)
class Tally:
    """The number of cases of one level by outcome."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: str) -> None:
        self.counts[outcome] = self.count(outcome) + 1

    def count(self, outcome: str) -> int:
        return self.counts.get(outcome, 0)

    @property
    def reached(self) -> bool:
        """Whether a case passed and none failed, known failures included."""
        return bool(self.count("pass")) and not self.count("fail") and not self.count("known")


def models_of(asked: Iterable[Leveled]) -> list[str]:
    """The models of L5's cases: the level is reached only for these, whose weights were there."""
    return sorted({one.model for one in asked if one.level == FULL_SIZE and one.model})


def badge(tallies: Mapping[Level, Tally], *, full_size: bool = False) -> Level | None:
    """The highest level reached with all levels below it (at full size that level alone); None if there is none."""
    reached = None
    for level in (FULL_SIZE,) if full_size else tuple(LEVELS):
        if level not in tallies or not tallies[level].reached:
            break
        reached = level
    return reached


def badge_text(reached: Level | None, asked: Iterable[Leveled]) -> str:
    """The badge as text; for L5 with the models that were judged."""
    models = models_of(asked)
    return f"{reached or 'none'}" + (f" of {', '.join(models)}" if reached and models else "")
