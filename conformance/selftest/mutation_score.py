"""The kill matrix summed up: score, survivors, equivalents, and the cases that catch nothing alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.selftest.kill_matrix import Row
from gemma4_contract import Fixtures
from gemma4_contract.judged import judged_digest
from reference.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One profile: ids of mutants by what became of them.

    `located` are the caught ones whose every case sees them first where they were expected. `untrue` are those that do
    otherwise than the catalogue says: survivors without a reason, and mutants that are caught although they are
    declared equivalent or survivors.
    """

    profile: str
    mutants: tuple[str, ...]
    equivalent: tuple[str, ...]
    caught: tuple[str, ...]
    located: tuple[str, ...]
    survivors: tuple[str, ...]
    untrue: tuple[str, ...]
    catch_nothing: tuple[str, ...]
    catch_nothing_alone: tuple[str, ...]

    @property
    def real(self) -> int:
        """How many mutants there are to be caught."""
        return len(self.mutants) - len(self.equivalent)

    @property
    def share(self) -> float:
        """Caught mutants over those that are not equivalent."""
        return len(self.caught) / self.real


def score(rows: Sequence[Row], catalogue: Mapping[str, Mutant], cases: Sequence[str]) -> Score:
    """The score of the rows of one profile over all cases that it asks."""
    (profile,) = {row.profile for row in rows}
    equivalent = {row.mutant for row in rows if profile in catalogue[row.mutant].equivalent_in}
    explained = {row.mutant for row in rows if profile in catalogue[row.mutant].survives_in}
    real = [row for row in rows if row.mutant not in equivalent]
    caught_by = Counter(kill.case for row in real for kill in row.kills)
    alone = {row.kills[0].case for row in real if len(row.kills) == 1}
    return Score(
        profile=profile,
        mutants=tuple(row.mutant for row in rows),
        equivalent=tuple(row.mutant for row in rows if row.mutant in equivalent),
        caught=tuple(row.mutant for row in real if row.kills),
        located=tuple(row.mutant for row in real if row.located),
        survivors=tuple(row.mutant for row in real if not row.kills),
        untrue=tuple(row.mutant for row in rows if bool(row.kills) == (row.mutant in equivalent | explained)),
        catch_nothing=tuple(case for case in cases if not caught_by[case]),
        catch_nothing_alone=tuple(case for case in cases if case not in alone),
    )


def as_table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table, one row a profile: what stands in docs/JUDGING.md."""
    rows = [
        "| profile | known mistakes | change nothing there | caught | score | first seen where expected |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in scores:
        columns = (
            result.profile,
            len(result.mutants),
            len(result.equivalent),
            f"{len(result.caught)} of {result.real}",
            f"{result.share:.1%}",
            f"{len(result.located)} of {len(result.caught)}",
        )
        rows.append(f"| {' | '.join(map(str, columns))} |")
    return "\n".join(rows)


def summary(rows: Sequence[Row], scores: Sequence[Score], fixtures: Fixtures) -> dict[str, Any]:
    """The scores for machines, with one witness of every caught mutant: its first kill, [case, tap]."""
    witnesses: dict[str, dict[str, list[str]]] = {result.profile: {} for result in scores}
    for row in rows:
        if row.kills:
            kill = next((kill for kill in row.kills if kill.expected), row.kills[0])
            witnesses[row.profile][row.mutant] = [kill.case, kill.tap]
    return {
        "fixtures": judged_digest(fixtures),
        "scores": [asdict(result) for result in scores],
        "witnesses": witnesses,
    }


def kills(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, str]]]:
    """The whole matrix: profile -> mutant -> case -> first tap."""
    whole: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        whole.setdefault(row.profile, {})[row.mutant] = {kill.case: kill.tap for kill in row.kills}
    return whole
