"""Damaged fixtures end a run with exit code 2 and one line: file, got, expected, cure. No port is blamed for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma4_contract import tensors
from gemma4_contract.files import sha256
from tests.support.runs import XDIST, Done, run_suite
from tests.support.trees import LAYER, OWNER, POINTER, ROPE, edit_json, small_tree

MODEL = "models/e2b-mini"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "fixtures")


def told(done: Done) -> str:
    """The one line with which pytest says why it ended."""
    lines = re.findall(r"^(?:! _pytest\.outcomes\.)?Exit: (.*?)(?: !)?$", done.stdout + done.stderr, re.MULTILINE)
    assert len(lines) == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return str(lines[0])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def truncated_and_recorded(root: Path) -> None:
    """A broken golden whose digest is right: what an interrupted, careless generator would leave."""
    folder = root / "cases" / ROPE
    truncated(folder / "expected.safetensors")
    digest = _digest(folder / "expected.safetensors")
    edit_json(folder / "case.json", lambda case: case["golden"].update(sha256=digest))


def _digest(path: Path) -> str:
    return sha256(path.read_bytes())


def flip_last_bit(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def without_a_tap(root: Path) -> None:
    folder = root / "cases" / LAYER
    arrays = tensors.read(folder / "expected_f32.safetensors")
    del arrays["model.layers.0.self_attn.context"]
    tensors.write(folder / "expected_f32.safetensors", arrays)
    digest = _digest(folder / "expected_f32.safetensors")
    edit_json(folder / "case.json", lambda case: case["golden"].update(sha256=digest))


def rewrite_model(root: Path, change: Callable[[dict[str, tensors.Array]], None]) -> None:
    path = root / MODEL / "model.safetensors"
    arrays = tensors.read(path)
    change(arrays)
    tensors.write(path, arrays)


def rename_a_tensor(arrays: dict[str, tensors.Array]) -> None:
    name = next(name for name in arrays if name.endswith("layers.0.layer_scalar"))
    arrays[f"{name}s"] = arrays.pop(name)


def reshape_a_tensor(arrays: dict[str, tensors.Array]) -> None:
    name = next(name for name in arrays if name.endswith("layers.0.layer_scalar"))
    arrays[name] = arrays[name].reshape(1, 1)


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "a golden is missing": (
        ROPE,
        lambda root: (root / "cases" / ROPE / "expected.safetensors").unlink(),
        f"cases/{ROPE}/expected.safetensors",
        "got No such file or directory, expected a readable file; restore it (git checkout fixtures/)",
    ),
    "an input is truncated": (
        ROPE,
        lambda root: truncated(root / "cases" / ROPE / "inputs.safetensors"),
        f"cases/{ROPE}/inputs.safetensors",
        "got SHA-256 * as case.json says; restore the fixtures",
    ),
    "a truncated golden is recorded": (
        ROPE,
        truncated_and_recorded,
        f"cases/{ROPE}/expected.safetensors",
        "bytes that safetensors cannot read (*), expected a complete safetensors file; restore the file",
    ),
    "a checksum differs": (
        POINTER,
        lambda root: flip_last_bit(root / "cases" / OWNER / "expected_f32.safetensors"),
        f"cases/{OWNER}/expected_f32.safetensors",
        "got SHA-256 * as case.json says; restore the fixtures",
    ),
    "a golden lacks a tap": (
        LAYER,
        without_a_tap,
        f"cases/{LAYER}/expected_f32.safetensors",
        "got no tensor model.layers.0.self_attn.context, expected F32 * as case.json says; restore the fixtures",
    ),
    "a case has an unknown key": (
        ROPE,
        lambda root: edit_json(root / "cases" / ROPE / "case.json", lambda case: case.update(extra=1)),
        f"cases/{ROPE}/case.json",
        "got Extra inputs are not permitted at extra, expected a Case of the fixture format * restore the fixtures",
    ),
    "a case is no JSON": (
        ROPE,
        lambda root: truncated(root / "cases" / ROPE / "case.json"),
        f"cases/{ROPE}/case.json",
        "got * expected a Case of the fixture format * restore the fixtures",
    ),
    "the floors are gone": (
        ROPE,
        lambda root: (root / "floors" / "f32.json").unlink(),
        "floors/f32.json",
        "got No such file or directory, expected a readable file; restore it",
    ),
    "the policy has an unknown key": (
        ROPE,
        lambda root: edit_json(root / "floors" / "policy.json", lambda policy: policy.update(slack=9)),
        "floors/policy.json",
        "got Extra inputs are not permitted at slack, expected a Policy of the fixture format * restore",
    ),
    "a configuration has an unknown key": (
        LAYER,
        lambda root: edit_json(root / MODEL / "config.json", lambda config: config.update(attn_scale=1)),
        f"{MODEL}/config.json",
        "got SHA-256 * as SHA256SUMS says; restore the fixtures (git checkout fixtures/)",
    ),
    "a weight has a wrong shape": (
        LAYER,
        lambda root: rewrite_model(root, reshape_a_tensor),
        f"{MODEL}/model.safetensors",
        "got SHA-256 * as SHA256SUMS says; restore the fixtures (git checkout fixtures/)",
    ),
    "a weight has a wrong name": (
        LAYER,
        lambda root: rewrite_model(root, rename_a_tensor),
        f"{MODEL}/model.safetensors",
        "got SHA-256 * as SHA256SUMS says; restore the fixtures (git checkout fixtures/)",
    ),
    "the sums are gone": (
        LAYER,
        lambda root: (root / "SHA256SUMS").unlink(),
        "SHA256SUMS",
        "got No such file or directory, expected a readable file; restore it",
    ),
}
"""What is damaged -> the case to be judged, the damage, the file to be blamed, and the line (* stands for anything)."""


def assert_blames(done: Done, root: Path, file: str, pattern: str) -> None:
    assert done.returncode == 2
    line = told(done)
    assert line.startswith(f"{root / file}: ")
    assert re.search(re.escape(pattern).replace(r"\*", ".*"), line), line


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told_in_one_line(root: Path, what: str) -> None:
    case, damage, file, pattern = DAMAGE[what]
    damage(root)
    port = "mlx_impl" if MODEL in file else "parrot"
    done = run_suite("--impl", port, "--fixtures-dir", str(root), "--cases", case)
    assert_blames(done, root, file, pattern)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a golden is missing", "a case has an unknown key"])
def test_the_same_under_xdist(root: Path, what: str) -> None:
    """Once where the fault is met while judging, once where it is met while collecting."""
    case, damage, file, pattern = DAMAGE[what]
    damage(root)
    done = run_suite("--impl", "parrot", "--fixtures-dir", str(root), "--cases", case, *XDIST)
    assert_blames(done, root, file, pattern)


def test_the_undamaged_copy_is_green(root: Path) -> None:
    done = run_suite("--impl", "mlx_impl", "--fixtures-dir", str(root))
    assert done.returncode == 0
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("folder", ["", "cases", "nowhere"])
def test_a_folder_that_holds_no_fixtures(root: Path, folder: str) -> None:
    wrong = root.parent if not folder else root / folder
    done = run_suite("--impl", "parrot", "--fixtures-dir", str(wrong))
    assert done.returncode == 2
    line = told(done)
    assert line.startswith(
        f"{wrong}: got no folder cases/ in it, expected the fixtures folder; name the folder that holds cases/, "
    )
