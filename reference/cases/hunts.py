"""The known mistakes that a case was made to catch, according to the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from reference.mutants import MUTANTS


def hunted_by(case_id: str) -> list[str]:
    """Ids of the known mistakes that a case was made to catch."""
    return [mutant.id for mutant in MUTANTS.values() if case_id in mutant.caught_by]


def reported(mutant_ids: Iterable[str]) -> list[str]:
    """The addresses of public reports of these mistakes, each once."""
    return list(dict.fromkeys(url for mutant_id in mutant_ids for url in MUTANTS[mutant_id].urls))
