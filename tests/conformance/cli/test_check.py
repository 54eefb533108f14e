"""`gemma4-conformance check`: an answer in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma4_contract import tensors
from tests.support.installed import FIXTURES
from tests.support.runs import run_command

ROPE = next(case_id for case_id in FIXTURES.case_ids if case_id.startswith("module/rope/"))


def dump(folder: Path, case_id: str, *, factor: float = 1.0, only: str | None = None) -> Path:
    """The golden of a case as an answer."""
    golden = FIXTURES.golden(FIXTURES.case(case_id))
    kept = {name: x * factor if x.dtype.kind == "f" else x for name, x in golden.items() if only in (None, name)}
    path = folder / "dump.safetensors"
    tensors.write(path, kept)
    return path


@pytest.fixture
def forward() -> str:
    return next(case_id for case_id in FIXTURES.case_ids if case_id.endswith("/no-cache"))


def test_a_right_answer_conforms(tmp_path: Path, forward: str) -> None:
    done = run_command("check", forward, str(dump(tmp_path, forward)))
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"{forward}: pass; ")


def test_logits_alone_are_enough(tmp_path: Path, forward: str) -> None:
    done = run_command("check", forward, str(dump(tmp_path, forward, only="logits")), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"]) == (0, "pass")
    assert next(name for name, status in told["taps"].items() if status == "pass") == "logits"


def test_a_wrong_answer_says_where_and_how_to_ask_again(tmp_path: Path) -> None:
    path = dump(tmp_path, ROPE, factor=1.01)
    done = run_command("check", ROPE, str(path))
    assert done.returncode == 1
    assert "\nfirst divergence: " in done.stdout
    assert f"\nreproduce: gemma4-conformance check {ROPE} {path} --profile f32\n" in done.stdout
    assert json.loads(run_command("check", ROPE, str(path), "--json").stdout)["fault"].startswith("got ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no/such/case", "x"), "CASE: got no/such/case, expected the id of a case"),
        ((ROPE, "/no/such/file"), "/no/such/file: got "),
        (("module/linear/full-precision", "x", "--profile", "bf16"), "--profile: got bf16, expected f64 or f32"),
    ],
)
def test_bad_input_is_one_line_and_2(arguments: tuple[str, ...], said: str) -> None:
    done = run_command("check", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(said)
