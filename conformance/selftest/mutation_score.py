"""The mutation score of a kill matrix: survivors, equivalents, and the cases that catch nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.selftest.kill_matrix import Result, Row
from gemma4_contract import Fixtures
from gemma4_contract.judged import chained_digest
from reference.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The mutants of one profile by result.

    `located` mutants are caught and every case sees them first where they were expected. `untrue` mutants do
    not do what the catalogue says: survivors without a reason, and mutants that are caught although they are
    declared equivalent or survivors.
    """

    profile: str
    mutants: tuple[str, ...]
    equivalent: tuple[str, ...]
    caught: tuple[str, ...]
    located: tuple[str, ...]
    survivors: tuple[str, ...]
    untrue: tuple[str, ...]

    @property
    def real(self) -> int:
        """The number of mutants that are not equivalent."""
        return len(self.mutants) - len(self.equivalent)

    @property
    def share(self) -> float:
        """Caught mutants over those that are not equivalent."""
        return len(self.caught) / self.real


def score(results: Sequence[Result], catalogue: Mapping[str, Mutant]) -> Score:
    """The score of the results of one profile."""
    (profile,) = {result.profile for result in results}
    equivalent = {result.mutant for result in results if profile in catalogue[result.mutant].equivalent_in}
    explained = {result.mutant for result in results if profile in catalogue[result.mutant].survives_in}
    real = [result for result in results if result.mutant not in equivalent]
    hidden = equivalent | explained
    return Score(
        profile=profile,
        mutants=tuple(result.mutant for result in results),
        equivalent=tuple(result.mutant for result in results if result.mutant in equivalent),
        caught=tuple(result.mutant for result in real if result.witness),
        located=tuple(result.mutant for result in real if result.located),
        survivors=tuple(result.mutant for result in real if not result.witness),
        untrue=tuple(result.mutant for result in results if bool(result.witness) == (result.mutant in hidden)),
    )


def scores_of(results: Sequence[Result], catalogue: Mapping[str, Mutant]) -> list[Score]:
    """The score of every profile that has results, in their order."""
    profiles = dict.fromkeys(result.profile for result in results)
    return [score([result for result in results if result.profile == profile], catalogue) for profile in profiles]


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """The cases of one profile that catch no mutant, and those that catch none which no other case catches."""

    catch_nothing: tuple[str, ...]
    catch_nothing_alone: tuple[str, ...]


def idle(rows: Sequence[Row], catalogue: Mapping[str, Mutant], cases: Sequence[str]) -> Idle:
    """The cases that the rows of one profile do not need; equivalent mutants are left out."""
    real = [row for row in rows if row.profile not in catalogue[row.mutant].equivalent_in]
    caught_by = Counter(kill.case for row in real for kill in row.kills)
    alone = {row.kills[0].case for row in real if len(row.kills) == 1}
    return Idle(
        catch_nothing=tuple(case for case in cases if not caught_by[case]),
        catch_nothing_alone=tuple(case for case in cases if case not in alone),
    )


def idle_of(rows: Sequence[Row], catalogue: Mapping[str, Mutant], fixtures: Fixtures) -> dict[str, Idle]:
    """Profile -> the cases of this profile that its rows do not need."""
    profiles = dict.fromkeys(row.profile for row in rows)
    return {
        profile: idle([row for row in rows if row.profile == profile], catalogue, _asked(fixtures, profile))
        for profile in profiles
    }


def _asked(fixtures: Fixtures, profile: str) -> list[str]:
    """The cases that are asked in a profile."""
    return [case.id for case in fixtures.cases() if not case.profiles or profile in case.profiles]


def as_table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table, one row a profile: part of docs/JUDGING.md."""
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


def summary(results: Sequence[Result], scores: Sequence[Score], fixtures: Fixtures) -> dict[str, Any]:
    """The scores for machines, with one witness of every caught mutant: [case, tap]."""
    witnesses: dict[str, dict[str, tuple[str, str]]] = {score.profile: {} for score in scores}
    for result in results:
        if result.witness:
            witnesses[result.profile][result.mutant] = result.witness
    return {
        "fixtures": chained_digest(fixtures),
        "scores": [asdict(score) for score in scores],
        "witnesses": witnesses,
    }


def kills(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, str]]]:
    """The whole matrix: profile -> mutant -> case -> first tap."""
    whole: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        whole.setdefault(row.profile, {})[row.mutant] = {kill.case: kill.tap for kill in row.kills}
    return whole
