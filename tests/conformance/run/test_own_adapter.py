"""An adapter of somebody's own, named on the command line: what it may do wrong, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemma4_contract import default_root
from tests.support import ROOT
from tests.support.runs import one_line, run_suite

CASE = ("--cases", "module/rms-norm/weighted")

GOOD = """
import numpy as np
from conformance.adapters.base import Hello, Skip

class MyAdapter:
    def hello(self):
        return Hello(name="my port", version="0.1", language="C++", family="my port",
                     profiles=("f32",), kinds=("rms_norm",), device="cpu")

    def run(self, request):
        if request.kind != "rms_norm":
            raise Skip("not yet")
        x, weight, eps = request.inputs["x"], request.inputs.get("weight", 1), request.params["eps"]
        mean_square = np.mean(x.astype(np.float64) ** 2, -1, keepdims=True)
        return {"y": (x / np.sqrt(mean_square + eps) * weight).astype(np.float32)}
"""


def judged(tmp_path: Path, code: str, impl: str = "my_port:MyAdapter") -> tuple[int, str]:
    (tmp_path / "my_port.py").write_text(code)
    done = run_suite("--impl", impl, *CASE, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"})
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    return done.returncode, output


def test_a_port_is_named_by_module_and_class(tmp_path: Path) -> None:
    code, output = judged(tmp_path, GOOD)
    assert code == 0, output
    assert "my port 0.1 (C++) on cpu" in output


def test_its_mistake_is_found(tmp_path: Path) -> None:
    code, output = judged(tmp_path, GOOD.replace('"weight", 1)', '"weight", 1) + 1'))
    assert code == 1
    assert "first divergence: y" in output


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("[1, 2]", "got list as answer, expected a dict of tap name to numpy.ndarray"),
        ("None", "got NoneType as answer"),
        ('{"y": [1.0]}', "got list for tap y, expected numpy.ndarray"),
    ],
)
def test_an_answer_of_the_wrong_type_is_the_port_s_fault(tmp_path: Path, answer: str, told: str) -> None:
    code, output = judged(tmp_path, GOOD.replace('return {"y"', f'return {answer}  # {{"y"'))
    assert code == 1
    assert told in output


@pytest.mark.parametrize(
    ("impl", "code", "told"),
    [
        ("my_port:Missing", 2, "expected a class of my_port"),
        ("no_such_module:MyAdapter", 3, "No module named 'no_such_module'"),
        ("my_port", 2, "or package.module:Class"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(tmp_path: Path, impl: str, code: int, told: str) -> None:
    got, output = judged(tmp_path, GOOD, impl)
    assert got == code
    assert told in output


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("def hello(self):\n        raise OSError('no phone')", "OSError: no phone"),
        ("def hello(self):\n        return 7", "hello() gave int, expected a Hello"),
        (
            "def __init__(self):\n        raise ValueError('no weights')\n\n    def hello(self):",
            "ValueError: no weights",
        ),
    ],
)
def test_an_adapter_that_breaks_at_once_breaks_the_run_with_one_line(tmp_path: Path, broken: str, told: str) -> None:
    (tmp_path / "my_port.py").write_text(GOOD.replace("def hello(self):", broken, 1))
    done = run_suite("--impl", "my_port:MyAdapter", *CASE, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"})
    assert done.returncode == 3
    assert told in one_line(done.stderr)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def f(:", "--impl my_port:MyAdapter: SyntaxError: invalid syntax (my_port.py, line 1)"),
        ("raise RuntimeError('no\\ngpu')", "--impl my_port:MyAdapter: RuntimeError: no gpu"),
        ("import no_such_module", "--impl my_port:MyAdapter: No module named 'no_such_module'; mend the module"),
    ],
)
def test_a_module_that_cannot_be_imported_breaks_the_run_with_one_line(tmp_path: Path, code: str, told: str) -> None:
    (tmp_path / "my_port.py").write_text(code)
    done = run_suite("--impl", "my_port:MyAdapter", *CASE, env={"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"})
    assert done.returncode == 3
    assert one_line(done.stderr) == f"Exit: {told}"


@pytest.mark.parametrize(
    ("change", "profile", "code", "told"),
    [
        (
            ('version="0.1"', "version=0.1"),
            "f32",
            3,
            "--impl my_port:MyAdapter: hello() gave 0.1 as version, which no report can hold: Input should be a valid",
        ),
        (
            ('"f32",', '"int8",'),
            "int8",
            2,
            f"{default_root()}/profiles: got no profile int8, expected f64, f32, bf16, f16; name one of these",
        ),
    ],
)
def test_what_no_report_can_hold_breaks_the_run_with_one_line(
    tmp_path: Path, change: tuple[str, str], profile: str, code: int, told: str
) -> None:
    (tmp_path / "my_port.py").write_text(GOOD.replace(*change))
    options = ("--profile", profile, "--report", str(tmp_path / "report"))
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = run_suite("--impl", "my_port:MyAdapter", "--cases", "module/rope/*", *options, env=env)
    assert done.returncode == code
    assert one_line(done.stderr).startswith(f"Exit: {told}")
