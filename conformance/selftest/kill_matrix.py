"""The kill matrix: which cases catch which mutants, and at which tap each is first seen."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from conformance.adapters.mutant import MutantAdapter
from conformance.judging.examine import CaseVerdict, OneJudgement
from conformance.judging.judge import Judge
from conformance.local.judge import LocalJudge
from conformance.local.predict import KINDS
from conformance.selftest.called_functions import calling_cases, cases_of
from gemma4_contract import Case, Fixtures
from gemma4_contract.models import GoldenPointer
from gemma4_contract.progress import Progress
from reference.loading import config_of
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS, Mutant

ORDER = "split"
"""The order of summation of judged mutants; predictions of a diagnosis use another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """A case that a mutant fails: the tap where it is first seen, and whether it was expected there."""

    case: str
    tap: str
    expected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One mutant in one profile."""

    mutant: str
    profile: str
    kills: tuple[Kill, ...]

    @property
    def located(self) -> bool:
        """Whether every case that catches the mutant sees it first where it was expected."""
        return bool(self.kills) and all(kill.expected for kill in self.kills)

    @property
    def result(self) -> Result:
        """The result to store; its witness is the first case that sees the mutant where it is expected, if any."""
        best = next((kill for kill in self.kills if kill.expected), self.kills[0] if self.kills else None)
        witness = (best.case, best.tap) if best else None
        return Result(mutant=self.mutant, profile=self.profile, located=self.located, witness=witness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The stored result of one mutant in one profile: whether it is located, and one case that catches it.

    The witness is (case, first tap), None for a mutant that no case catches.
    """

    mutant: str
    profile: str
    located: bool
    witness: tuple[str, str] | None


def row(
    fixtures: Fixtures, mutant: Mutant, profile: str, cases: Collection[str], judgement: OneJudgement = "chained"
) -> Row:
    """Judge one mutant on these cases by one judgement alone."""
    local = LocalJudge(fixtures, profile) if judgement == "local" else None
    judge = Judge(fixtures, MutantAdapter(mutant, ORDER), profile, local)
    verdicts = (judge.judge(case) for case in cases)
    kills = (kill(fixtures, mutant, verdict, judgement) for verdict in verdicts)
    return Row(mutant=mutant.id, profile=profile, kills=tuple(kill for kill in kills if kill is not None))


def kill(fixtures: Fixtures, mutant: Mutant, verdict: CaseVerdict, judgement: OneJudgement = "chained") -> Kill | None:
    """The tap where a judgement first sees a mutant, STOPS if there was no answer; None if it does not see it."""
    if judgement == "local":
        seen = next((tap.name for tap in verdict.wrong_by_themselves), STOPS if verdict.outcome == "error" else None)
    else:
        seen = None if not verdict.failed else verdict.first_divergence.name if verdict.first_divergence else STOPS
    if seen is None:
        return None
    alone = verdict.case.model is None  # a module case holds one step: there is nothing to locate
    places = [] if alone else expected_taps(fixtures, mutant, verdict.case)
    expected = alone or (seen in places if judgement == "local" else seen == places[0])
    return Kill(case=verdict.case.id, tap=seen, expected=expected)


def expected_taps(fixtures: Fixtures, mutant: Mutant, case: Case) -> list[str]:
    """The asked taps of a case where a mutant changes something itself, in execution order; never empty.

    They are its first taps; of one that is not asked, the taps that are computed from it.
    """
    if mutant.first_tap == STOPS:
        return [STOPS]
    assert case.model is not None
    single = isinstance(case.golden, GoldenPointer) and case.golden.rows[1] == 1
    # Over a single key the softmax is 1, whatever the score.
    asked = {tap.name for tap in fixtures.taps(case) if not (single and {"L", "S"} <= set(tap.axes))}
    touched, found = set(mutant.first_taps(config_of(fixtures.model_dir(case.model)))), []
    for tap in fixtures.owner(case).taps:  # in execution order
        if tap.name in touched or not (touched - asked).isdisjoint(tap.parents):
            touched.add(tap.name)
            if tap.name in asked:
                found.append(tap.name)
    return found or [mutant.first_tap]


def kill_matrix(
    fixtures: Fixtures,
    profiles: Sequence[str],
    mutants: Iterable[Mutant],
    jobs: int,
    progress: Progress,
    judgement: OneJudgement = "chained",
) -> list[Row]:
    """Judge mutants in every profile on all cases that call what they replace, in `jobs` processes, by one judgement.

    The rows stand in the order of the profiles, then of the mutants.
    """
    judged = list(mutants)
    rows: list[Row] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        work = []
        for profile in profiles:
            calls = calling_cases(fixtures, profile)
            case_ids = asked_by(judgement, fixtures)
            work += [
                pool.submit(_row, fixtures.root, mutant.id, profile, cases_of(mutant, calls, case_ids), judgement)
                for mutant in judged
            ]
        for done, future in enumerate(as_completed(work)):
            rows.append(future.result())
            progress(done + 1, len(work), f"{rows[-1].profile}, {rows[-1].mutant}")
    order = {mutant.id: place for place, mutant in enumerate(judged)}
    return sorted(rows, key=lambda row: (profiles.index(row.profile), order[row.mutant]))


def asked_by(judgement: OneJudgement, fixtures: Fixtures) -> list[str]:
    """The cases that a judgement can judge."""
    return [case.id for case in fixtures.cases() if judgement == "chained" or case.kind in KINDS]


def _row(root: Path, mutant: str, profile: str, cases: list[str], judgement: OneJudgement) -> Row:
    return row(_fixtures(root), MUTANTS[mutant], profile, cases, judgement)


@functools.cache
def _fixtures(root: Path) -> Fixtures:
    return Fixtures(root)
