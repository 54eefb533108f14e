"""The stored results of a self-test: written, read, merged, and refused if they are broken."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from conformance.selftest import stored_results
from gemma4_contract import FixtureError
from gemma4_contract.files import canonical_json
from gemma4_contract.judged import chained_digest
from tests.support.installed import FIXTURES
from tests.support.kill_matrices import AT_1, GELU, L1, L2, ROPE, SCALE, STORED, made


def test_results_are_written_by_profile_and_mutant(tmp_path: Path) -> None:
    stored_results.write(tmp_path / "results.json", STORED, FIXTURES)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored == {
        "fixtures": chained_digest(FIXTURES),
        "results": {
            "f32": {ROPE.id: {"located": False, "witness": [AT_1, "y"]}, SCALE.id: {"located": False}},
            "f64": {SCALE.id: {"located": True, "witness": [L1, "model.embed_tokens"]}},
        },
    }


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    stored_results.write(tmp_path / "results.json", STORED, FIXTURES)
    read = stored_results.read(tmp_path / "results.json", FIXTURES)
    assert sorted(read, key=str) == sorted(STORED, key=str)


def test_judged_results_replace_stored_ones_in_the_order_of_the_catalogue() -> None:
    again, new = made(ROPE.id, L2).result, made(GELU.id, L1).result
    results = stored_results.merged(STORED, [new, again], [GELU.id, ROPE.id, SCALE.id], ["f64", "f32"])
    assert results == [STORED[2], new, again, STORED[1]]
    assert stored_results.merged(STORED, [], [ROPE.id], ["f64", "f32"]) == [STORED[0]]  # the other is no mutant now


def test_results_on_other_fixtures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    stored_results.write(path, STORED, FIXTURES)
    path.write_bytes(canonical_json(json.loads(path.read_bytes()) | {"fixtures": "0" * 64}))
    with pytest.raises(FixtureError) as refused:
        stored_results.read(path, FIXTURES)
    assert str(refused.value) == (
        f"{path}: got results of a self-test on other fixtures (000000000000...), expected on these "
        f"({chained_digest(FIXTURES)[:12]}...); judge all mutants: gemma4-conformance self-test --save {path}"
    )


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"{", "Invalid JSON"),
        (b"{}", "Field required at fixtures"),
        (b'{"fixtures": "", "results": {"f32": {"a": {"located": 2}}}}', "boolean"),
    ],
)
def test_broken_results_are_refused(content: bytes, got: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(FixtureError, match=re.escape(got)) as refused:
        stored_results.read(tmp_path / "results.json", FIXTURES)
    assert "expected results of a self-test; judge all mutants" in str(refused.value)
