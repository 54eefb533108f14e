"""The digest of what decides a verdict: every judged byte moves it, and no prose does."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma4_contract import Fixtures
from gemma4_contract.errors import FixtureError
from gemma4_contract.files import canonical_json
from gemma4_contract.judged import BESIDES, FOLDERS, judged_digest
from gemma4_contract.models import Case, ModelCard
from tests.support.installed import FIXTURES

OWNER, POINTER = "forward/e2b-mini/uniform-l19/no-cache", "forward/e2b-mini/uniform-l2/no-cache"
ADVICE, LOOKALIKE = "module/mlp/overflow", "module/weights/matrix"
CARD = "models/e2b-mini/model.json"

Change = Callable[[Any], object]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The fixtures with four cases and one model, sums included."""
    for folder in ("floors", "models/e2b-mini", *(f"cases/{case}" for case in (OWNER, POINTER, ADVICE, LOOKALIKE))):
        shutil.copytree(FIXTURES.root / folder, tmp_path / folder)
    return tmp_path


def digest_of(tree: Path) -> str:
    fixtures = Fixtures(tree)
    fixtures.write_sums()
    return judged_digest(fixtures)


def case_json(case: str) -> str:
    return f"cases/{case}/case.json"


def edit(file: Path, change: Change) -> None:
    """Change a JSON file in place; the change must be one."""
    before = file.read_bytes()
    document = json.loads(before)
    change(document)
    file.write_bytes(canonical_json(document))
    assert file.read_bytes() != before


PROSE_CHANGES: dict[str, tuple[str, Change]] = {
    "purpose": (case_json(OWNER), lambda case: case.update(purpose="Another sentence.")),
    "hunts": (case_json(POINTER), lambda case: case.setdefault("hunts", []).append("a-new-mistake")),
    "links": (case_json(POINTER), lambda case: case.setdefault("links", []).append("https://example.org/1")),
    "no links": (case_json(POINTER), lambda case: case.pop("links")),
    "advice": (case_json(ADVICE), lambda case: case.update(advice="Use another dtype.")),
    "provenance": (case_json(OWNER), lambda case: case["provenance"]["versions"].update(numpy="9.9")),
    "lookalike's advice": (
        case_json(LOOKALIKE),
        lambda case: case["lookalikes"]["known"][0].update(advice="Another sentence."),
    ),
    "card's purpose": (CARD, lambda card: card.update(purpose="Another sentence.")),
    "card's measured figures": (CARD, lambda card: card["acceptance"].update(f32=1e-9)),
}


@pytest.mark.parametrize("change", PROSE_CHANGES)
def test_prose_leaves_the_digest(tree: Path, change: str) -> None:
    before = digest_of(tree)
    file, edited = PROSE_CHANGES[change]
    edit(tree / file, edited)
    assert digest_of(tree) == before


def test_files_that_no_verdict_reads_leave_the_digest(tree: Path) -> None:
    before = digest_of(tree)
    for name in ("mistakes/a-new-mistake.json", "schema/case.schema.json", "prompts/chat/hello.json", "README.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("{}")
    assert digest_of(tree) == before


JUDGED_CHANGES: dict[str, tuple[str, Change]] = {
    "plan": (case_json(POINTER), lambda case: case["plan"].update(steps=[1, 1])),
    "rows": (case_json(POINTER), lambda case: case["golden"].update(rows=[0, 3])),
    "class": (case_json(OWNER), lambda case: case["taps"][0].update({"class": "exact"})),
    "parents": (case_json(OWNER), lambda case: case["taps"][5]["parents"].append("model.embed_tokens")),
    "params": (case_json(LOOKALIKE), lambda case: case["params"].update(formula="norm")),
    "profiles": (case_json(ADVICE), lambda case: case.update(profiles=["f16", "bf16"])),
    "lookalike's tap": (case_json(LOOKALIKE), lambda case: case["lookalikes"]["known"][0].update(tap="y2")),
    "weights' rule": (CARD, lambda card: card.update(weights_rule=None)),
    "floor": ("floors/f32.json", lambda floors: floors["floors"][OWNER]["logits"].__setitem__(0, 1.0)),
    "policy": ("floors/policy.json", lambda policy: policy.update(floor_factor=99.0)),
    "config": ("models/e2b-mini/config.json", lambda config: config["text_config"].update(rms_norm_eps=1e-5)),
}


@pytest.mark.parametrize("change", JUDGED_CHANGES)
def test_what_decides_a_verdict_changes_the_digest(tree: Path, change: str) -> None:
    before = digest_of(tree)
    file, edited = JUDGED_CHANGES[change]
    edit(tree / file, edited)
    assert digest_of(tree) != before


@pytest.mark.parametrize(
    "file",
    [
        f"cases/{OWNER}/expected_f32.safetensors",
        f"cases/{ADVICE}/inputs.safetensors",
        f"cases/{LOOKALIKE}/lookalikes.safetensors",
        "models/e2b-mini/model.safetensors",
    ],
)
def test_a_byte_of_a_tensor_changes_the_digest(tree: Path, file: str) -> None:
    before = digest_of(tree)
    data = bytearray((tree / file).read_bytes())
    data[-1] ^= 1
    (tree / file).write_bytes(data)
    assert digest_of(tree) != before


def test_a_case_more_changes_the_digest(tree: Path) -> None:
    before = digest_of(tree)
    shutil.copytree(FIXTURES.root / "cases/module/rope/default-at-1", tree / "cases/module/rope/default-at-1")
    assert digest_of(tree) != before


def test_a_document_that_cannot_be_read_keeps_its_own_digest(tree: Path) -> None:
    digests = {digest_of(tree)}
    for broken in (b"{", b"[]", b"\xff"):
        (tree / case_json(POINTER)).write_bytes(broken)
        digests.add(digest_of(tree))
    assert len(digests) == 4


def test_no_sums_no_digest(tree: Path) -> None:
    with pytest.raises(FixtureError, match="SHA256SUMS: got No such file or directory"):
        judged_digest(Fixtures(tree))


def test_prose_is_named_by_fields_that_there_are() -> None:
    models = {"case.json": Case, "model.json": ModelCard}
    assert models.keys() == BESIDES.keys()
    for file, model in models.items():
        for key in BESIDES[file]:
            assert key.split(".")[0] in model.model_fields, key
    assert all((FIXTURES.root / folder).is_dir() for folder in FOLDERS)


def test_the_digest_takes_no_time() -> None:
    """A run makes it once: 0.3 s of a quiet processor at most."""
    judged_digest(FIXTURES)
    start = time.process_time()
    judged_digest(FIXTURES)
    assert time.process_time() - start < 0.3
