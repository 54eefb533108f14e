"""Checks before a run on models whose weights do not ship: their weights, and the floors of each case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from conformance.reporting.reproduce import options
from gemma4_contract import FixtureError, Fixtures, ModelCard
from gemma4_contract.documents import read_model
from gemma4_contract.weights import Weights

_STORED_BYTES = 2
"""Bytes of a parameter in a materialised checkpoint."""


def with_weights(fixtures: Fixtures, weights: Weights, case_ids: Sequence[str]) -> list[str]:
    """The cases of models whose weights are there; FixtureError if there are none."""
    models = {case_id: fixtures.case(case_id).model or "" for case_id in case_ids}
    there = [case_id for case_id in case_ids if weights.folder(models[case_id]).is_dir()]
    if not there:
        cards = {name: read_model(fixtures.card_dir(name) / "model.json", ModelCard) for name in models.values()}
        sizes = sorted((_STORED_BYTES * card.parameters / 1e9, name) for name, card in cards.items())
        smallest, *larger = (f"{name} ({size:.1f} GB)" for size, name in sizes)
        cure = f"write them: gemma4-conformance materialize {smallest}"
        cure += f"; the others: {', '.join(larger)}" if larger else ""
        raise FixtureError(weights.root, got="no weights", expected="those of a model that is asked", cure=cure)
    return there


def check_floors(fixtures: Fixtures, case_ids: Iterable[str], profile: str) -> None:
    """Check in advance that all cases have floors, because an answer takes minutes; FixtureError if not."""
    path = fixtures.root / "floors" / f"{profile}.json"
    measured = fixtures.floors(profile).floors if path.exists() else {}
    for owner in (fixtures.owner(fixtures.case(case_id)) for case_id in case_ids):
        if owner.id not in measured:
            model = options(fixtures) or f" --model {owner.model}"
            cure = f"measure them: gemma4-conformance floors{model} --profile {profile}"
            raise FixtureError(path, got=f"no floors of {owner.id}", expected="those of each case", cure=cure)
