"""docs/NUMERICS.md says what the fixtures hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reference.format import Case, Fixtures, GoldenPointer

DOC = (Path(__file__).parents[1] / "docs" / "NUMERICS.md").read_text(encoding="utf-8")
FIXTURES = Fixtures()
OWNERS = [case for case in FIXTURES.cases() if not isinstance(case.golden, GoldenPointer)]


def of(folder: str) -> list[Case]:
    return [case for case in FIXTURES.cases() if case.id.startswith(folder)]


@pytest.mark.parametrize(
    ("row", "folder"),
    [
        ("whole forward passes, every plan", "forward"),
        ("layers", "layer"),
        ("attention", "attention"),
        ("modules", "module"),
    ],
)
def test_the_agreement_of_the_goldens(row: str, folder: str) -> None:
    (found,) = re.findall(rf"^\| {row} \| (\d+) \| (\S+) .*?\| (\S+) \|$", DOC, re.MULTILINE)
    count, worst, unlifted = found
    owners = [case for case in OWNERS if case.id.startswith(folder)]
    assert int(count) == len(owners)
    assert float(worst) == max(case.provenance.agreement or 0.0 for case in of(folder))
    assert float(unlifted) == max(case.provenance.agreement_unlifted or 0.0 for case in owners)


@pytest.mark.parametrize("model", FIXTURES.model_ids)
def test_the_acceptance_of_the_models(model: str) -> None:
    card = json.loads((FIXTURES.model_dir(model) / "model.json").read_text(encoding="utf-8"))
    (found,) = re.findall(rf"^\| {card.get('weights_of', model)} \| (\S+) \| (\S+) \| (\S+) \|$", DOC, re.MULTILINE)
    figures = card["acceptance"]
    assert [float(figure) for figure in found] == [figures["f32"], figures["bf16"], figures["echo"]]


@pytest.mark.parametrize("profile", FIXTURES.profiles)
def test_the_ratios_of_the_families(profile: str) -> None:
    (found,) = re.findall(rf"^\| {profile} \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", DOC, re.MULTILINE)
    ratios = FIXTURES.floors(profile).leave_one_family_out
    assert list(found) == [str(ratios.get(family, "-")) for family in ("mlx", "numpy", "torch", "python")]
