"""Ports that misbehave: none is green, none brings the run down, and each is told for what it did."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.adapters.base import PortFault
from conformance.adapters.external.limits import Limits
from conformance.adapters.external.lines import LineProcess
from conformance.adapters.external.process import ProcessAdapter
from conformance.adapters.registry import AdapterUnavailable, BadOption, create
from conformance.judging.judge import Judge
from tests.support.installed import FIXTURES
from tests.support.runs import PORTS, run_suite

CASES = [case_id for case_id in FIXTURES.case_ids if case_id.startswith("module/rms-norm/")]
TIMEOUT = 5.0


def words(how: str) -> list[str]:
    return [sys.executable, str(PORTS / "saboteur.py"), how]


def command(how: str) -> str:
    return shlex.join(words(how))


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[ProcessAdapter]:
    limits = Limits(seconds=1.5 if request.param in ("hang", "deaf") else TIMEOUT)
    adapter = ProcessAdapter(words(request.param), limits)
    yield adapter
    adapter.close()


@pytest.mark.parametrize("port", ["honest", "split"], indirect=True)
def test_an_honest_port_passes(port: ProcessAdapter) -> None:
    judge = Judge(FIXTURES, port, "f32")
    assert CASES
    assert [judge.judge(case_id).outcome for case_id in CASES] == ["pass"] * len(CASES)


WRONG_ANSWERS = ("zero", "input", "nan", "transposed", "dtype", "half")


@pytest.mark.parametrize("port", WRONG_ANSWERS, indirect=True)
def test_a_wrong_answer_fails(port: ProcessAdapter) -> None:
    judge = Judge(FIXTURES, port, "f32")
    outcomes = {judge.judge(case_id).outcome for case_id in CASES}
    assert "fail" in outcomes
    assert "error" not in outcomes


DIES_AT_ONCE_A_MODEL = """
import json, sys
for text in sys.stdin:
    line = json.loads(text)
    with open(sys.argv[1], "a") as file:
        print(line["cmd"], file=file)
    hello = {"protocol": 1, "implementation": {"name": "x", "version": "1", "language": "x"}, "kinds": ["layer"]}
    if line["cmd"] == "run":
        sys.exit(1)
    print(json.dumps({"ok": True} if line["cmd"] == "load" else hello | {"profiles": ["f32"]}), flush=True)
"""
FAULTS = {
    "name": ("fail", "y is required and absent"),
    "no file": ("error", "the port said ok and wrote no file"),
    "link": ("error", "the port said ok and wrote no file"),
    "truncated": ("error", "the port wrote a broken file"),
    "garbage file": ("error", "the port wrote a broken file"),
    "crash": ("error", "the port died: exit 1; its last words: out of luck and words"),
    "killed": ("error", "the port died: signal 9"),
    "closes": ("error", "the port died: it closed its output"),
    "verbose": ("error", "its last words: " + ("word " * 100 + "the end")[-200:]),
    "hang": ("error", "the port hangs: no answer within 1.5 s"),
    "deaf": ("error", "the port hangs: no answer within 1.5 s"),
    "error": ("error", "the port answered with an error: no idea"),
    "out of turn": ("error", "the port answered out of turn: got seq "),
    "no seq": ("error", "the port said '{\"ok\": true}': Field required at seq"),
    "nothing": ("error", 'expected one of "ok": true, "skipped" and "error"'),
    "both": ("error", 'expected one of "ok": true, "skipped" and "error"'),
    "list": ("error", "Input should be an object"),
    "garbage": ("error", "the port said 'ok!': Invalid JSON"),
    "empty": ("error", "the port said '': Invalid JSON"),
    "bytes": ("error", r"the port said what is no UTF-8: b'\xff\xfe\n'"),
    "huge": ("error", "the port said a line of more than 16777216 bytes"),
    "skips": ("skip", "not today"),
}


@pytest.mark.parametrize("port", FAULTS, indirect=True)
def test_every_fault_is_told_for_what_it_is_and_the_next_question_is_put(
    port: ProcessAdapter, request: pytest.FixtureRequest
) -> None:
    outcome, said = FAULTS[request.node.callspec.params["port"]]
    judge = Judge(FIXTURES, port, "f32")
    for case_id in CASES[:2]:
        verdict = judge.judge(case_id)
        assert verdict.outcome == outcome
        assert said in verdict.note
        assert "\n" not in verdict.note


@pytest.mark.parametrize("port", ["twice"], indirect=True)
def test_a_line_that_nobody_asked_for_is_a_fault_of_the_next_question(port: ProcessAdapter) -> None:
    judge = Judge(FIXTURES, port, "f32")
    assert judge.judge(CASES[0]).outcome == "pass"
    time.sleep(0.2)
    assert "before it was asked" in judge.judge(CASES[1]).note


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("stillborn", "--port: the port died: exit 3"),
        ("old", "--port: the port said "),
        ("no profile", "Input should be 'f64', 'f32', 'bf16' or 'f16' at profiles.0"),
        ("mute", "Field required at protocol"),
        ("chatty", "--port: the port said "),
    ],
)
def test_a_port_that_says_no_good_hello_cannot_be_driven(how: str, said: str) -> None:
    with pytest.raises(AdapterUnavailable) as caught:
        create(f"port:{command(how)}")
    assert said in str(caught.value)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(PortFault, match=r"the port cannot be started: /no/such/program: No such file or directory"):
        ProcessAdapter(["/no/such/program"])


@pytest.mark.parametrize("kind", ["port", "once"])
@pytest.mark.parametrize(("line", "said"), [("'", "cannot be split"), ("", "the command of the port is empty")])
def test_a_command_that_is_none(kind: str, line: str, said: str) -> None:
    with pytest.raises(BadOption, match=said):
        create(f"{kind}:{line}")


def test_a_question_that_the_port_does_not_read_hangs_nobody(tmp_path: Path) -> None:
    process = LineProcess([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path)
    start = time.monotonic()
    with pytest.raises(PortFault, match="the port hangs"):
        process.ask("x" * 1_000_000, Limits(seconds=0.5))  # more than a pipe holds
    assert time.monotonic() - start < 20
    process.kill()


@pytest.mark.parametrize("port", ["crash"], indirect=True)
def test_a_kind_that_a_port_has_not_is_not_asked(port: ProcessAdapter) -> None:
    softcap = Judge(FIXTURES, port, "f32").judge("module/softcap/cap-30")
    assert (softcap.outcome, softcap.note) == ("skip", "no kind softcap")


def test_a_port_that_died_is_given_the_model_again(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    program = tmp_path / "port.py"
    program.write_text(DIES_AT_ONCE_A_MODEL, encoding="utf-8")
    port = ProcessAdapter([sys.executable, str(program), str(asked)])
    judge = Judge(FIXTURES, port, "f32")
    layers = [case_id for case_id in FIXTURES.case_ids if case_id.startswith("layer/e2b-mini/")][:2]
    assert [judge.judge(case_id).outcome for case_id in layers] == ["error", "error"]
    port.close()
    assert asked.read_text(encoding="utf-8").split() == ["hello", "load", "run", "hello", "load", "run"]


def test_a_port_that_does_not_stop_is_stopped() -> None:
    port = ProcessAdapter(words("stays"))
    process = port._process
    assert isinstance(process, LineProcess)
    port.close()
    assert process._process.returncode is not None


def test_a_port_that_reads_on_until_nothing_comes_ends_at_once() -> None:
    port = ProcessAdapter(words("reads on"))
    process = port._process
    assert isinstance(process, LineProcess)
    port.close()
    assert process._process.returncode == 0


def test_nothing_is_left_in_the_folder_of_a_run() -> None:
    port = ProcessAdapter(words("honest"))
    Judge(FIXTURES, port, "f32").judge(CASES[0])
    assert [path.name for path in port._file("x").parent.iterdir()] == ["stderr.txt"]
    port.close()


@pytest.mark.parametrize(("how", "code"), [("honest", 0), ("zero", 1), ("crash", 1), ("skips", 1), ("old", 3)])
def test_a_run_by_command(how: str, code: int) -> None:
    done = run_suite("--port", command(how), "--cases", "module/rms-norm/*")
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    if how == "zero":
        assert f"reproduce: pytest conformance/ --port {shlex.quote(command(how))} --profile f32" in done.stdout
