"""ports/skeletons: each builds and runs by the commands at its head, and answers whatever the protocol may bring."""

from __future__ import annotations

import json
import shlex
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array
from tests.support import ROOT

SKELETONS = ROOT / "ports" / "skeletons"
FILES = ["adapter.cpp", "adapter.rs", "adapter.swift"]
OFFERED = ("module/rms-norm/", "module/softcap/")

X = np.array([[1.0, -2.0, 3.0], [0.5, 0.25, -4.0]], np.float32)
WEIGHT = np.array([2.0, -1.0, 0.5], np.float32)


def normed(eps: float = 1e-6) -> Array:
    x = X.astype(np.float64)
    y: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    return y


def commands(file: str) -> list[str]:
    """The two commands at the head of a skeleton: how it is built, and how it is judged."""
    lines = (SKELETONS / file).read_text(encoding="utf-8").splitlines()[:6]
    return [line.removeprefix("//     ") for line in lines if line.startswith("//     ")]


def in_folder(folder: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module", params=FILES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a skeleton was copied to and built: what it runs as is ./adapter."""
    words = shlex.split(commands(request.param)[0])
    compiler = shutil.which(words[0])
    # A compiler's launcher may be there with no compiler behind it.
    if compiler is None or subprocess.run([compiler, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"{words[0]} is not installed")
    folder = tmp_path_factory.mktemp("skeleton")
    shutil.copy(SKELETONS / request.param, folder)
    done = in_folder(folder, words)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def judged(folder: Path, words: Sequence[str]) -> dict[str, Counter[str]]:
    """Level -> how many cases ended how, in a run of the command that conforms."""
    program = "from conformance.cli import main; main()"
    done = in_folder(folder, [sys.executable, "-c", program, *words, "--json"])
    assert done.returncode == 0, done.stdout + done.stderr
    return {level: Counter(counts) for level, counts in json.loads(done.stdout)["levels"].items()}


def said(folder: Path, *lines: str | dict[str, Any]) -> list[dict[str, Any]]:
    """What is answered to some lines, each answer on a line of its own."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    done = subprocess.run(
        [folder / "adapter"], input=text.encode(), cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def question(file: Path, /, **changes: Any) -> dict[str, Any]:
    """A line that asks for an RMSNorm of the inputs; the answer goes beside them."""
    return {
        "cmd": "run",
        "seq": 7,
        "case": "module/rms-norm/own",
        "kind": "rms_norm",
        "profile": "f32",
        "plan": None,
        "params": {"eps": 1e-6},
        "inputs": str(file),
        "want": ["y"],
        "out": str(file.with_name("out.safetensors")),
        **changes,
    }


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "in.safetensors"
    positions = np.arange(2, dtype=np.int32)
    save_file({"x": X, "weight": WEIGHT, "positions": positions}, path, metadata={"made": "here"})
    return path


def assert_normed(out: Path, eps: float = 1e-6) -> None:
    (y,) = load_file(out).values()
    assert y.dtype == np.float32
    assert y.shape == X.shape
    np.testing.assert_allclose(y, normed(eps) * WEIGHT, rtol=2e-7)


@pytest.mark.parametrize("file", FILES)
def test_readme_gives_the_commands(file: str) -> None:
    readme = (SKELETONS / "README.md").read_text(encoding="utf-8")
    assert [command for command in commands(file) if command not in readme] == []


def test_the_command_at_its_head_is_green(folder: Path, request: pytest.FixtureRequest) -> None:
    file = request.node.callspec.params["folder"]
    words = shlex.split(commands(file)[1])
    assert words[0] == "gemma4-conformance"
    norms = sum(case_id.startswith("module/rms-norm/") for case_id in Fixtures().case_ids)
    assert judged(folder, words[1:]) == {"L1": Counter({"pass": norms})}


def test_what_it_does_not_offer_is_skipped(folder: Path) -> None:
    levels = judged(folder, ["run", "--port", "./adapter", "--cases", "module/*"])
    ended = sum(levels.values(), Counter[str]())
    assert set(ended) == {"pass", "skip"}
    assert ended["pass"] == sum(case_id.startswith(OFFERED) for case_id in Fixtures().case_ids)


def test_it_stops_when_told_to_and_at_the_end_of_its_input(folder: Path) -> None:
    hello = {"cmd": "hello", "protocol": 1}
    (at_end,) = said(folder, hello)
    (stopped,) = said(folder, hello, {"cmd": "stop"}, hello)
    assert at_end == stopped
    assert (at_end["protocol"], at_end["profiles"]) == (1, ["f32"])
    assert sorted(at_end["kinds"]) == ["rms_norm", "softcap"]
    assert said(folder) == []


def test_what_is_still_to_come_is_skipped(folder: Path, inputs: Path) -> None:
    prompt = {"cmd": "prompt", "seq": 2, "messages": [{"role": "user", "content": 'Tab\t, "é", \U0001f600'}]}
    lines = [
        question(inputs, kind="mlp", seq=1),
        {**prompt, "template": "small@2026-07-09", "tools": None, "enable_thinking": None},
        {"cmd": "tokenize", "seq": 3, "text": "", "tokenizer": "tokenizer.json"},
        {"cmd": "sing", "seq": 4, "verses": [[], {}, [[1, 2.5e3], {"a": {"b": [True, False, None]}}]]},
    ]
    assert said(folder, *lines) == [{"seq": seq, "skipped": "not yet"} for seq in (1, 2, 3, 4)]
    assert said(folder, {"cmd": "load", "model_dir": "/"}) == [{"error": "no models yet"}]


@pytest.mark.parametrize("line", ["", "nonsense", "{", '{"cmd": ', '{"cmd": "hello"', '{"cmd": "hel', "[]", "7", "{}"])
def test_a_line_that_is_no_question_is_an_error(folder: Path, inputs: Path, line: str) -> None:
    error, answer = said(folder, line, question(inputs))
    assert list(error) == ["error"]
    assert answer == {"seq": 7, "ok": True}


def test_keys_it_does_not_know_and_white_space_change_nothing(folder: Path, inputs: Path) -> None:
    unknown = {"later": [{"a": "}"}, [], {}], "ok": True, "": None, "nested": {"inputs": 1, "cmd": "stop"}}
    line = json.dumps({**unknown, **question(inputs)}, indent=1).replace("\n", "\r \t")
    assert said(folder, line) == [{"seq": 7, "ok": True}]
    assert_normed(inputs.with_name("out.safetensors"))


@pytest.mark.parametrize("name", ["a name with spaces", 'quo"tes', "back\\slash", "été", "\U0001f600", "{[,:]}"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_names_of_files_come_as_they_are(folder: Path, inputs: Path, name: str, ascii_only: bool) -> None:
    other, out = inputs.rename(inputs.with_name(name)), inputs.with_name(f"{name}-out")
    line = json.dumps(question(other, out=str(out)), ensure_ascii=ascii_only)
    assert said(folder, line) == [{"seq": 7, "ok": True}]
    assert_normed(out)


def with_name(text: str) -> str:
    """A line that asks for the file whose name is written so in JSON."""
    return json.dumps(question(Path("NAME"))).replace('"NAME"', f'"{text}"')


def test_every_escape_of_json(folder: Path) -> None:
    (answer,) = said(folder, with_name(r"no/\u00e9\ud83D\uDe00\/\"\b\f\n\r\t\u0001\\\u0041"))
    assert answer["seq"] == 7
    assert 'no/é\U0001f600/"\b\f\n\r\t\x01\\A' in answer["error"]


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"\ud800A", r"\ud800\ud800", r"\u12", r"\u12gh"])
def test_half_a_character_is_refused(folder: Path, inputs: Path, escape: str) -> None:
    error, answer = said(folder, with_name(escape), question(inputs))
    assert "error" in error
    assert answer == {"seq": 7, "ok": True}


@pytest.mark.parametrize("eps", ["1e-06", "1E-6", "0.000001", "1e+1", "1", "2.5", "-0.25", "0"])
def test_numbers_in_every_spelling(folder: Path, inputs: Path, eps: str) -> None:
    line = json.dumps(question(inputs)).replace("1e-06", eps)
    assert said(folder, line) == [{"seq": 7, "ok": True}]
    assert_normed(inputs.with_name("out.safetensors"), float(eps))


def test_a_weight_may_be_absent_and_a_tensor_empty(folder: Path, inputs: Path) -> None:
    empty = np.zeros((2, 0, 3), np.float32)
    for x in (X, empty, X[:, :0], X.reshape(1, 2, 1, 3)):
        save_file({"x": np.ascontiguousarray(x)}, inputs)
        assert said(folder, question(inputs)) == [{"seq": 7, "ok": True}]
        (y,) = load_file(inputs.with_name("out.safetensors")).values()
        assert y.shape == x.shape
        np.testing.assert_allclose(y.ravel(), normed().ravel()[: y.size], rtol=2e-7)


def test_a_question_that_cannot_be_answered_is_an_error(folder: Path, inputs: Path) -> None:
    nowhere = inputs.parent / 'no "such" folder'
    questions = [
        question(inputs, inputs=str(nowhere / "in")),
        question(inputs, inputs=str(inputs.parent)),
        question(inputs, inputs=None),
        question(inputs, out=str(nowhere / "out")),
        question(inputs, params={}),
        question(inputs, params={"eps": "small"}),
        {"cmd": "run", "seq": 7},
        {"seq": 7},
        {"cmd": None, "seq": 7},
    ]
    answers = said(folder, *questions, question(inputs))
    assert [sorted(answer) for answer in answers[:-1]] == [["error", "seq"]] * len(questions)
    assert {answer["seq"] for answer in answers} == {7}
    assert str(nowhere / "in") in answers[0]["error"]
    assert answers[-1] == {"seq": 7, "ok": True}


def file_of(header: str | dict[str, Any], data: bytes = bytes(24)) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 9) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        struct.pack("<Q", 2**63) + b"{}",
        file_of("{"),
        file_of("[]"),
        file_of("nonsense"),
        file_of({"x": 1}),
        file_of({"x": {}}),
        file_of(entry(dtype="U8")),
        file_of(entry(shape=[2, 4])),
        file_of(entry(shape=[2**32, 2**32, 2**32])),
        file_of(entry(shape=[-2, -3])),
        file_of(entry(shape="23")),
        file_of(entry(data_offsets=[0, 2**62])),
        file_of(entry(data_offsets=[24, 0])),
        file_of(entry(data_offsets=[-24, 0])),
        file_of(entry(data_offsets=[24])),
        file_of(entry(), bytes(23)),
        file_of(entry(shape=[], data_offsets=[0, 4])),
    ],
)
def test_a_broken_file_is_an_error(folder: Path, inputs: Path, data: bytes) -> None:
    broken = inputs.with_name("broken")
    broken.write_bytes(data)
    error, answer = said(folder, question(broken), question(inputs))
    assert sorted(error) == ["error", "seq"]
    assert answer == {"seq": 7, "ok": True}


def test_a_weight_that_does_not_fit_is_an_error(folder: Path, inputs: Path) -> None:
    save_file({"x": X, "weight": WEIGHT[:2]}, inputs)
    assert said(folder, question(inputs)) == [{"seq": 7, "error": "weight does not fit x"}]
