"""docs/NUMERICS.md says what the fixtures hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gemma4_contract import Case, Floors, GoldenPointer, ModelCard
from gemma4_contract.documents import read_model
from gemma4_contract.full_size import at_full_size
from reference.full_size import FULL_SIZE, SLICES
from tests.support import ROOT
from tests.support.installed import FIXTURES

DOC = (ROOT / "docs" / "NUMERICS.md").read_text(encoding="utf-8")
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
    chained, _, _ = DOC.partition("### Two judgements")
    (found,) = re.findall(rf"^\| {profile} \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", chained, re.MULTILINE)
    ratios = FIXTURES.floors(profile).leave_one_family_out
    assert list(found) == [str(ratios.get(family, "-")) for family in ("mlx", "numpy", "torch", "python")]


@pytest.mark.parametrize("profile", FIXTURES.profiles)
def test_the_local_floors(profile: str) -> None:
    section = DOC[DOC.index("### Two judgements") : DOC.index("<!-- local-score -->")]
    (row,) = re.findall(rf"^\| {profile} \|" + r" (\S+) \|" * 5 + "$", section, re.MULTILINE)
    table = FIXTURES.local_floors(profile)
    rms = [rms for rms, _ in table.floors.values()]
    ratios = [table.leave_one_family_out.get(family) for family in ("mlx", "numpy", "torch")]
    assert list(row) == [
        f"{np.median(rms):.1e}",
        f"{max(rms):.1e}",
        *("-" if ratio is None else str(ratio) for ratio in ratios),
    ]


@pytest.mark.parametrize("model", FULL_SIZE)
def test_the_derivations_and_the_acceptance_at_full_size(model: str) -> None:
    full = at_full_size(FIXTURES, Path())
    (found,) = re.findall(rf"^\| `{model}` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", DOC, re.MULTILINE)
    agreements = {case.provenance.agreement for case in full.cases() if case.model == model}
    figures = read_model(full.root / "models" / model / "model.json", ModelCard).acceptance
    assert [float(one) for one in found] == [*agreements, *(figures[name] for name in ("f32", "bf16", "echo"))]
    policy = FIXTURES.policy
    assert max(agreement or 1.0 for agreement in agreements) <= policy.agreement
    assert figures["f32"] <= policy.acceptance_f32
    assert figures["echo"] <= policy.acceptance_echo
    assert figures["bf16"] <= policy.acceptance_bf16


def test_the_families_at_full_size() -> None:
    full = at_full_size(FIXTURES, Path())
    ratios = full.floors("f32").leave_one_family_out
    models = {name.partition("/")[0] for name in ratios}
    assert models == {"e2b-full", "e4b-full", "12b-full", *(name for name in SLICES if not name.startswith("26b"))}
    for model in models:
        (found,) = re.findall(rf"^\| `{model}` \| (\S+) \| (\S+) \| (\S+) \|$", DOC, re.MULTILINE)
        assert [float(one) for one in found] == [ratios[f"{model}/{family}"] for family in ("mlx", "numpy", "torch")]
    assert max(ratios.values()) < FIXTURES.policy.floor_factor
    section = DOC[DOC.index("### At full size") : DOC.index("## Low precision")]
    in_bf16 = full.floors("bf16").leave_one_family_out
    assert all(re.search(rf"\b{ratio}0?\b", section) for ratio in in_bf16.values()), in_bf16


@pytest.mark.parametrize("profile", ["f32", "bf16"])
def test_the_errors_at_full_size_are_the_floors(profile: str) -> None:
    section = DOC[DOC.index("### At full size") :]
    depths = re.search(r"^\| layer \| ([\d |]+) \| logits \|$", section, re.MULTILINE)
    row = re.search(rf"^\| {profile} \| (.*) \|$", section, re.MULTILINE)
    assert depths is not None
    assert row is not None
    path = FIXTURES.root / "full" / "floors" / f"{profile}.json"
    floors = read_model(path, Floors).floors["forward/e2b-full/text-l593/no-cache"]
    names = [f"model.layers.{layer}.output" for layer in depths.group(1).split(" | ")] + ["logits"]
    assert [float(figure) for figure in row.group(1).split(" | ")] == [floors[name][0] for name in names]
