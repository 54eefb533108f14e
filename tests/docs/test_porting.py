"""docs/PORTING.md: its adapter runs as it stands there, and its lists are complete."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from conformance.judging.judge import Judge
from gemma4_contract import protocol
from gemma4_contract.models import Kind
from gemma4_contract.tensors import Array
from reference.oracle.arithmetic import F32
from reference.oracle.kv_cache import KVCache
from reference.oracle.oracle import ORACLE
from tests.support import ROOT
from tests.support.fakes import Port
from tests.support.installed import FIXTURES
from tests.support.markdown import block, read
from tests.support.runs import run

TEXT = read("docs/PORTING.md")
MY_RMS_NORM = """
import numpy as np


def my_rms_norm(x, weight, eps):
    y = x / np.sqrt(np.mean(np.square(x, dtype=np.float64), -1, keepdims=True) + eps)
    return (y if weight is None else y * weight).astype(np.float32)
"""
"""What the example in Python calls, and does not show: the port."""


def test_the_first_adapter_is_green(tmp_path: Path) -> None:
    (tmp_path / "adapter.py").write_text(block(TEXT, "adapter.py"), encoding="utf-8")
    words = shlex.split(block(TEXT, "run"))
    assert words[0] == "gemma4-conformance"
    command = [word.replace("python adapter.py", f"{sys.executable} adapter.py") for word in words[1:]]
    program = "from conformance.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "level: asked with all cases only" in done.stdout


def test_the_class_in_python_is_green(tmp_path: Path) -> None:
    (tmp_path / "my_port.py").write_text(MY_RMS_NORM + block(TEXT, "my_port.py"), encoding="utf-8")
    command = block(TEXT, "run my_port.py").strip()
    assert command.startswith("PYTHONPATH=. pytest conformance/ ")
    command = command.replace("PYTHONPATH=.", f"PYTHONPATH={ROOT}:{tmp_path}") + " --cases 'module/[rs]*'"
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my port 0.1 (C++) on cpu" in done.stdout
    assert "no kind softcap" in done.stdout


def test_the_forward_pass_in_python_conforms() -> None:
    """With the oracle as the model that the reader has."""

    def load(directory: Path) -> Callable[..., Array]:
        return ORACLE.load(directory, F32).forward

    names: dict[str, Any] = {"load": load, "new_cache": lambda _: KVCache()}
    exec(block(TEXT, "forward.py"), names)
    port = Port(names["forward"])
    for plan in ("no-cache", "one-shot", "chunks-5", "padded"):
        verdict = Judge(FIXTURES, port, "f32").judge(f"forward/trap-moe/uniform-l19/{plan}")
        assert verdict.outcome == "pass", verdict.note


def test_every_kind_is_named() -> None:
    for kind in get_args(Kind):
        assert f"`{kind}`" in TEXT, kind


def test_every_key_of_the_protocol_is_shown() -> None:
    for line in (*protocol.REQUESTS, *protocol.ANSWERS):
        for key in line.model_fields:
            assert f'"{key}"' in TEXT or f"`{key}`" in TEXT, f"{line.__name__}.{key}"


def test_the_taps_of_a_module_tree_are_read_as_it_is_shown() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.model = torch.nn.Module()
    model.model.norm = torch.nn.Identity()
    model.forward = lambda x: model.model.norm(2 * x)
    model.config = SimpleNamespace(num_hidden_layers=1, hidden_size_per_layer_input=0)
    ids = torch.arange(6.0).reshape(1, 3, 2)
    names: dict[str, Any] = {"model": model, "want": ["model.norm"], "calls": [ids[:, :2], ids[:, 2:]]}
    exec(block(TEXT, "module_tree.py"), names)
    assert torch.equal(names["answer"]["model.norm"], 2 * ids)
