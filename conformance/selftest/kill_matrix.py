"""The kill matrix: which cases catch which mutants, and where each is first seen."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from conformance.adapters.mutant import MutantAdapter
from conformance.adapters.oracle import OracleAdapter
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from gemma4_contract import Case, Fixtures
from gemma4_contract.models import GoldenPointer
from reference.config import TextConfig
from reference.loading import Loader, config_of
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS, Mutant, is_function
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.oracle.oracle import Oracle

Progress = Callable[[int, int, str], None]
_Right = TypeVar("_Right")

ORDER = "split"
"""The order of summation of mutants under judgement: not the one that predictions of a diagnosis are made in."""


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


def row(fixtures: Fixtures, mutant: Mutant, profile: str, cases: Collection[str]) -> Row:
    """Judge one mutant on these cases."""
    judge = Judge(fixtures, MutantAdapter(mutant, ORDER), profile)
    verdicts = (judge.judge(case) for case in cases)
    kills = tuple(kill(fixtures, mutant, verdict) for verdict in verdicts if verdict.failed)
    return Row(mutant=mutant.id, profile=profile, kills=kills)


def kill(fixtures: Fixtures, mutant: Mutant, verdict: CaseVerdict) -> Kill:
    """A kill with the tap where it was seen: STOPS where there was no answer."""
    first = verdict.first_divergence.name if verdict.first_divergence else STOPS
    alone = verdict.case.model is None  # a module case holds one step: there is nothing to locate
    expected = alone or first == expected_tap(fixtures, mutant, verdict.case)
    return Kill(case=verdict.case.id, tap=first, expected=expected)


def expected_tap(fixtures: Fixtures, mutant: Mutant, case: Case) -> str:
    """Where a case should first see a mutant: at the first asked tap that is its first tap or computed from it."""
    if mutant.first_tap == STOPS:
        return STOPS
    assert case.model is not None
    single = isinstance(case.golden, GoldenPointer) and case.golden.rows[1] == 1
    # Over a single key the softmax is 1, whatever the score.
    asked = {tap.name for tap in fixtures.taps(case) if not (single and "S" in tap.axes)}
    touched = set(mutant.first_taps(config_of(fixtures.model_dir(case.model))))
    for tap in fixtures.owner(case).taps:  # in execution order
        if touched.intersection(tap.parents):
            touched.add(tap.name)
        if tap.name in touched & asked:
            return tap.name
    return mutant.first_tap


def reached(fixtures: Fixtures, profile: str) -> Mapping[str, list[str]]:
    """Function of the oracle, `Ops.rope` -> the cases whose answer calls it."""
    calls: dict[str, list[str]] = defaultdict(list)
    called: set[str] = set()
    noting = Oracle(
        ops=_noting(Ops, called),
        decoder=_noting(Decoder, called),
        config=_noting(TextConfig, called),
        loader=_noting(Loader, called),
    )
    for case_id in fixtures.case_ids:
        called.clear()
        Judge(fixtures, OracleAdapter(oracle=noting), profile).judge(case_id)  # a fresh one: loading counts
        for name in called:
            calls[name].append(case_id)
    return calls


def cases_of(mutant: Mutant, calls: Mapping[str, Collection[str]], case_ids: Sequence[str]) -> list[str]:
    """Those of `case_ids` whose answer calls what a mutant replaces."""
    return [case for case in case_ids if any(case in calls.get(name, ()) for name in mutant.replaces)]


def _noting(right: type[_Right], called: set[str]) -> type[_Right]:
    """A class whose functions do what they did, and note their names when they are called."""
    functions = {
        name: member
        for cls in reversed(right.__mro__)
        for name, member in vars(cls).items()
        if is_function(member) and (name == "__init__" or not name.startswith("_"))
    }
    noted = {name: _noted(member, f"{right.__name__}.{name}", called) for name, member in functions.items()}
    return type(right.__name__, (right,), noted)


def _noted(function: Any, name: str, called: set[str]) -> Any:
    if isinstance(function, classmethod):
        return classmethod(_noted(function.__func__, name, called))

    def noted(*args: object, **named: object) -> object:
        called.add(name)
        return function(*args, **named)

    return noted


def kill_matrix(fixtures: Fixtures, profiles: Sequence[str], jobs: int, progress: Progress) -> list[Row]:
    """Judge every mutant in every profile on all cases that call what it replaces, in `jobs` processes."""
    rows: list[Row] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        work = []
        for profile in profiles:
            calls = reached(fixtures, profile)
            work += [
                pool.submit(_row, fixtures.root, mutant.id, profile, cases_of(mutant, calls, fixtures.case_ids))
                for mutant in MUTANTS.values()
            ]
        for done, future in enumerate(as_completed(work)):
            rows.append(future.result())
            progress(done + 1, len(work), f"{rows[-1].profile}, {rows[-1].mutant}")
    order = {mutant: place for place, mutant in enumerate(MUTANTS)}
    return sorted(rows, key=lambda row: (profiles.index(row.profile), order[row.mutant]))


def _row(root: Path, mutant: str, profile: str, cases: list[str]) -> Row:
    return row(_fixtures(root), MUTANTS[mutant], profile, cases)


@functools.cache
def _fixtures(root: Path) -> Fixtures:
    return Fixtures(root)
