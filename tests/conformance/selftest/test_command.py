"""`gemma4-conformance self-test` on three mistakes and six cases."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import pytest

from conformance.selftest import stored_results
from gemma4_contract import Fixtures
from reference import mutants
from tests.support.commands import Call, call_command
from tests.support.installed import FIXTURES
from tests.support.kill_matrices import (
    AT_1,
    EMBEDDING,
    FEW,
    FULL,
    GELU,
    L2,
    ROPE,
    SCALE,
    SLIDING,
    STORED,
    Page,
)


@pytest.fixture
def self_test(
    few: Fixtures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """`gemma4-conformance self-test` on three mistakes and six cases; exit code, stdout, stderr."""
    from conformance.cli import self_test as command

    monkeypatch.setattr(command, "Fixtures", lambda _: few)
    monkeypatch.chdir(tmp_path)

    return functools.partial(call_command, capsys, monkeypatch, "self-test", "--profile", "f32", "--jobs", "1")


def test_a_catalogue_that_is_caught_is_green(self_test: Call, tmp_path: Path) -> None:
    code, out, err = self_test("--save", "score.json", "--page", "page.html")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "| f32 | 3 | 0 | 3 of 3 | 100.0% | 3 of 3 |"
    saved = json.loads((tmp_path / "score.json").read_text())
    assert saved["results"]["f32"][ROPE.id] == {"located": True, "witness": [AT_1, "y"]}
    assert Page((tmp_path / "page.html").read_text()).heads.keys() >= {ROPE.id, SCALE.id, GELU.id}


def test_a_survivor_is_named_and_turns_the_run_red(
    self_test: Call, few: Fixtures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(few.__dict__, "case_ids", (EMBEDDING, AT_1))
    code, out, err = self_test()
    assert code == 1
    assert err == "f32: gelu-erf is not caught: and the catalogue does not say why\n"
    assert out.splitlines()[-1] == "| f32 | 3 | 0 | 2 of 3 | 66.7% | 2 of 2 |"


def test_a_survivor_with_a_reason_is_named_and_green(
    self_test: Call, few: Fixtures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(few.__dict__, "case_ids", (EMBEDDING, AT_1))
    explained = dataclasses.replace(GELU, survives_in={"f32": "no case with an MLP is put"})
    monkeypatch.setattr(mutants, "MUTANTS", {**mutants.MUTANTS, GELU.id: explained})
    code, _, err = self_test()
    assert code == 0
    assert err == "f32: gelu-erf is not caught: no case with an MLP is put\n"


def test_a_mutant_that_is_declared_equivalent_and_fails_a_case_turns_the_run_red(
    self_test: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {"f32": "It is said to change nothing."}
    catalogue = {**mutants.MUTANTS, ROPE.id: dataclasses.replace(ROPE, equivalent_in=declared)}
    monkeypatch.setattr(mutants, "MUTANTS", catalogue)
    code, out, err = self_test()
    assert code == 1
    assert err == f"f32: {ROPE.id} does otherwise than the catalogue says: it is caught\n"
    assert out.splitlines()[-1] == "| f32 | 3 | 1 | 2 of 2 | 100.0% | 2 of 2 |"


def test_the_matrix_as_json(self_test: Call) -> None:
    code, out, err = self_test("--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["kills"]["f32"][ROPE.id] == {
        AT_1: "y",
        FULL: "model.layers.4.self_attn.q_rope",
        L2: "model.layers.4.self_attn.q_rope",
    }
    assert [result["caught"] for result in told["scores"]] == [[ROPE.id, SCALE.id, GELU.id]]
    assert told["idle"] == {"f32": {"catch_nothing": [], "catch_nothing_alone": list(FEW)}}


def test_two_mutants_are_judged_and_their_results_alone_are_written(self_test: Call, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    stored_results.write(path, STORED, FIXTURES)
    before = json.loads(path.read_text())
    code, out, err = self_test("--only", GELU.id, "--only", ROPE.id, "--save", str(path))
    assert code == 1
    assert err == f"f32: {SCALE.id} is not caught: and the catalogue does not say why\n"  # as the file has it
    after = json.loads(path.read_text())
    gelu = {"located": True, "witness": [SLIDING, "model.layers.0.mlp.act"]}
    assert after["results"]["f32"].pop(GELU.id) == gelu
    assert after["results"]["f32"].pop(ROPE.id) == {"located": True, "witness": [AT_1, "y"]}
    del before["results"]["f32"][ROPE.id]
    assert after == before
    assert out.splitlines()[-2:] == [
        "| f64 | 1 | 0 | 1 of 1 | 100.0% | 1 of 1 |",
        "| f32 | 3 | 0 | 2 of 3 | 66.7% | 2 of 2 |",
    ]


def test_one_mutant_is_judged_without_a_file(self_test: Call) -> None:
    code, out, err = self_test("--only", SCALE.id)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "| f32 | 1 | 0 | 1 of 1 | 100.0% | 1 of 1 |"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--only", "gelu-erv"),
            "self-test --only: got 'gelu-erv', expected the id of a known mistake; did you mean gelu-erf?",
        ),
        (("--only", GELU.id, "--honest"), "self-test: got --only with --honest, expected one of them"),
        (
            ("--only", GELU.id, "--save", "none.json"),
            "none.json: got no such file, expected results of a self-test; judge all",
        ),
    ],
)
def test_what_cannot_be_judged_alone_is_refused(options: tuple[str, ...], message: str, self_test: Call) -> None:
    code, out, err = self_test(*options)
    assert (code, out) == (2, "")
    assert err.startswith(message)


def test_the_page_shows_no_honest_implementations(self_test: Call, tmp_path: Path) -> None:
    code, out, err = self_test("--honest", "--page", "page.html")
    assert (code, out) == (2, "")
    assert err.startswith("self-test: got --page with --honest, expected one of them")
    assert not (tmp_path / "page.html").exists()
