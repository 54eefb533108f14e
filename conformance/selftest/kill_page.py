"""The kill matrix as one self-contained page: mutants down, groups of cases across."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conformance.reporting.html import render_page
from conformance.selftest.kill_matrix import Row
from conformance.selftest.mutation_score import idle_of, scores_of
from gemma4_contract import Case, Fixtures
from reference.mutants import MUTANTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The verdicts of one group of cases on one mutant; `shade` 0 to 4 is the part of the group that catches it."""

    shade: int
    title: str


def render(rows: Sequence[Row], fixtures: Fixtures) -> str:
    """The page's HTML, a table for each profile that has rows."""
    groups = {case.id: group(case) for case in fixtures.cases()}
    sizes = Counter(groups.values())
    idle = idle_of(rows, MUTANTS, fixtures)
    tables = [
        {
            "score": score,
            "idle": idle[score.profile],
            "rows": [
                (MUTANTS[row.mutant], row, _cells(row, groups, sizes)) for row in rows if row.profile == score.profile
            ],
        }
        for score in scores_of([row.result for row in rows], MUTANTS)
    ]
    return render_page("kill_matrix.html.j2", groups=list(sizes), tables=tables)


def group(case: Case) -> str:
    """The column of a case: its kind, and its model where it has one."""
    return f"{case.kind}/{case.model}" if case.model else f"module/{case.kind.replace('_', '-')}"


def _cells(row: Row, groups: Mapping[str, str], sizes: Mapping[str, int]) -> list[Cell | None]:
    caught = Counter(groups.get(kill.case) for kill in row.kills)
    return [
        Cell(shade=1 + (3 * caught[name]) // size, title=f"{name}: {caught[name]} of {size}") if caught[name] else None
        for name, size in sizes.items()
    ]
