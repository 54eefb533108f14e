"""Finds the cases whose answer calls a function that a mutant replaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from conformance.adapters.oracle import OracleAdapter
from conformance.judging.judge import Judge
from gemma4_contract import Fixtures
from reference.config import TextConfig
from reference.loading import Loader
from reference.mutants.mutant import Mutant, is_function
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.oracle.oracle import Oracle

_Right = TypeVar("_Right")


def calling_cases(fixtures: Fixtures, profile: str) -> Mapping[str, list[str]]:
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
    """The cases of `case_ids` whose answer calls a function that a mutant replaces."""
    return [case for case in case_ids if any(case in calls.get(name, ()) for name in mutant.replaces)]


def _noting(right: type[_Right], called: set[str]) -> type[_Right]:
    """A subclass whose functions also note their names in `called`."""
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
