"""The catalogue of known mistakes as data: `mistakes/<id>.json`, and the mistakes that each case hunts."""

from __future__ import annotations

from pathlib import Path

from gemma4_contract import Fixtures
from gemma4_contract.documents import write_model
from gemma4_contract.mistakes import Mistake
from reference.cases.hunts import hunted_by, reported
from reference.mutants import MUTANTS
from reference.mutants.mutant import Mutant

FOLDER = "mistakes"


def mistake_of(mutant: Mutant) -> Mistake:
    """A mutant as its document."""
    return Mistake(
        id=mutant.id,
        area=mutant.area,
        does=mutant.does,
        symptom=mutant.symptom,
        cure=mutant.cure,
        first_tap=mutant.first_tap,
        layers=mutant.layers,
        links=mutant.urls,
        equivalent_in=dict(mutant.equivalent_in),
        survives_in=dict(mutant.survives_in),
        caught_by=list(mutant.caught_by),
    )


def write_mistakes(root: Path) -> None:
    """Write a document for every mutant into `root`/mistakes."""
    for mutant in MUTANTS.values():
        write_model(root / FOLDER / f"{mutant.id}.json", mistake_of(mutant))


def update(fixtures: Fixtures) -> None:
    """Bring stored fixtures up to date with the catalogue: documents, `hunts` and `links` of the cases, SHA256SUMS.

    No golden is made.
    """
    for path in (fixtures.root / FOLDER).glob("*.json"):
        if path.stem not in MUTANTS:
            path.unlink()
    write_mistakes(fixtures.root)
    for case in fixtures.cases():
        hunts = hunted_by(case.id)
        links = reported(hunts)
        if (case.hunts, case.links) != (hunts, links):
            changed = case.model_copy(update={"hunts": hunts, "links": links})
            write_model(fixtures.case_dir(case.id) / "case.json", changed)
    fixtures.write_sums()
