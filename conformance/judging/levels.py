"""How far an implementation conforms: every level is reached only with all below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

Level = Literal["L0", "L1", "L2", "L3", "L4", "L5"]
LEVELS: Mapping[Level, str] = {
    "L0": "smoke: files, weights by rule, products, sums, exp and tanh",
    "L1": "modules and single layers",
    "L2": "whole forward passes without a cache",
    "L3": "cache: one shot, chunks, token by token, batches",
    "L4": "prompts to the byte",
    "L5": "models at full size",
}
FULL_SIZE: Level = "L5"
"""It stands alone: its models need weights of their own."""
_GLOBS: tuple[tuple[str, Level], ...] = (
    ("forward/*-full/*", "L5"),
    ("forward/*-slice/*", "L5"),
    ("prompt/*", "L4"),
    ("module/echo/*", "L0"),
    ("module/weights/*", "L0"),
    ("module/linear/*", "L0"),
    ("module/long-sum/*", "L0"),
    ("module/exp-tanh/*", "L0"),
    ("forward/*/no-cache", "L2"),
    ("forward/*", "L3"),
    ("*", "L1"),
)


def level_of(case_id: str) -> Level:
    """The level that a case or a question on prompts belongs to."""
    return next(level for glob, level in _GLOBS if fnmatchcase(case_id, glob))


@dataclass(slots=True, kw_only=True)
class Tally:
    """How the cases of one level ended, by outcome."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: str) -> None:
        self.counts[outcome] = self.count(outcome) + 1

    def count(self, outcome: str) -> int:
        return self.counts.get(outcome, 0)

    @property
    def reached(self) -> bool:
        """Whether something passed and nothing failed, known or not."""
        return bool(self.count("pass")) and not self.count("fail") and not self.count("known")


def models_of(case_ids: Iterable[str]) -> list[str]:
    """The models that cases of L5 are about: the level is reached for these alone, whose weights were there."""
    return sorted({case_id.split("/")[1] for case_id in case_ids if level_of(case_id) == FULL_SIZE})


def badge(tallies: Mapping[Level, Tally], *, full_size: bool = False) -> Level | None:
    """The highest level that is reached with all below it, at full size that alone; None when the first is not."""
    reached = None
    for level in (FULL_SIZE,) if full_size else tuple(LEVELS):
        if level not in tallies or not tallies[level].reached:
            break
        reached = level
    return reached


def told(reached: Level | None, case_ids: Iterable[str]) -> str:
    """A badge in words, that of L5 with the models it is about."""
    models = models_of(case_ids)
    return f"{reached or 'none'}" + (f" of {', '.join(models)}" if reached and models else "")
