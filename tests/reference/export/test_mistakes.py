"""The catalogue as data: one document for each mutant, brought up to date without making a golden."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conformance.cli import app
from gemma4_contract import Fixtures
from gemma4_contract.documents import read_model
from gemma4_contract.files import canonical_json
from gemma4_contract.mistakes import Mistake
from reference.export.mistakes import mistake_of, update
from reference.mutants import MUTANTS
from tests.support.installed import FIXTURES

MISTAKES = FIXTURES.root / "mistakes"


@pytest.fixture
def copied(tmp_path: Path) -> Fixtures:
    """A copy of the fixtures without what this module never reads: prompts and full size."""
    shutil.copytree(FIXTURES.root, tmp_path / "fixtures", ignore=shutil.ignore_patterns("full"))
    copy = Fixtures(tmp_path / "fixtures")
    copy.write_sums()
    return copy


def test_stored_mistakes_are_the_catalogue() -> None:
    stored = {path.stem: read_model(path, Mistake) for path in MISTAKES.glob("*.json")}
    made = {mutant.id: mistake_of(mutant) for mutant in MUTANTS.values()}
    assert stored == made, "run `gemma4-conformance export --mistakes`"


def test_a_document_says_what_the_entry_says() -> None:
    document = json.loads((MISTAKES / "gelu-erf.json").read_text(encoding="utf-8"))
    mutant = MUTANTS["gelu-erf"]
    assert document.keys() == {"format", *Mistake.model_fields}
    for name in ("id", "area", "does", "symptom", "cure", "first_tap", "layers", "equivalent_in", "survives_in"):
        assert document[name] == getattr(mutant, name)
    assert document["links"] == mutant.urls
    assert document["caught_by"] == list(mutant.caught_by)


def test_an_update_writes_what_is_missing_and_removes_what_is_no_mistake(copied: Fixtures) -> None:
    case = copied.case_dir("module/experts/fused") / "case.json"
    before = {path: path.read_bytes() for path in copied.files()}
    (copied.root / "mistakes" / "gelu-erf.json").unlink()
    (copied.root / "mistakes" / "no-mistake.json").write_text("{}")
    described = json.loads(case.read_bytes())
    case.write_bytes(canonical_json(described | {"hunts": ["gelu-silu"], "links": []}))
    fresh = Fixtures(copied.root)
    assert fresh.verify() != []
    update(fresh)
    assert {path: path.read_bytes() for path in fresh.files()} == before
    assert fresh.verify() == []


def test_verify_reads_the_mistakes(copied: Fixtures) -> None:
    path = copied.root / "mistakes" / "gelu-erf.json"
    document = json.loads(path.read_bytes())
    del document["cure"]
    path.write_bytes(canonical_json(document))
    copied.write_sums()
    (fault,) = copied.verify()
    assert str(fault).startswith(f"{path}: got Field required at cure, expected a Mistake of the fixture format")


def test_the_command_updates(copied: Fixtures) -> None:
    (copied.root / "mistakes" / "gelu-erf.json").unlink()
    done = CliRunner().invoke(app, ["export", "--mistakes", "--fixtures-dir", str(copied.root)])
    assert (done.exit_code, done.output) == (0, "")
    assert copied.verify() == []


def test_the_command_compares_everything_or_nothing() -> None:
    done = CliRunner().invoke(app, ["export", "--mistakes", "--check"])
    assert done.exit_code != 0
    assert (
        str(done.exception) == "export: got --mistakes with --check, expected one of them: --check compares everything"
    )
