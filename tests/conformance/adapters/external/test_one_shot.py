"""Ports that are started for every question."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest

from conformance.adapters.external.limits import Limits
from conformance.adapters.external.one_shot import OneShotAdapter
from conformance.judging.judge import Judge
from tests.support.installed import FIXTURES
from tests.support.runs import PORTS, run_command, run_suite

CASE = "module/rms-norm/large"


def words(how: str) -> list[str]:
    return [sys.executable, str(PORTS / "once.py"), how]


@pytest.mark.parametrize(
    ("how", "outcome", "said"),
    [
        ("honest", "pass", ""),
        ("zero", "fail", ""),
        ("fails", "error", "the port died: exit 1; its last words: no luck"),
        ("says on standard output", "error", "the port died: exit 1; its last words: the wrong place"),
        ("killed", "error", "the port died: signal 9"),
        ("hangs", "error", "the port hangs: no end within 2 s"),
        ("writes nothing", "error", "the port said ok and wrote no file out.safetensors"),
    ],
)
def test_every_end_of_the_command_is_told_for_what_it_is(how: str, outcome: str, said: str) -> None:
    limits = Limits(seconds=2.0 if how == "hangs" else 20.0)
    verdict = Judge(FIXTURES, OneShotAdapter(words(how), limits), "f32").judge(CASE)
    assert (verdict.outcome, verdict.note) == (outcome, said)


def test_what_a_hanging_command_started_ends_with_it(tmp_path: Path) -> None:
    left = tmp_path / "left"
    hangs = ["sh", "-c", f"(sleep 1.5; touch {shlex.quote(str(left))}) & wait"]
    adapter = OneShotAdapter(hangs, Limits(seconds=0.5))
    assert Judge(FIXTURES, adapter, "f32").judge(CASE).note == "the port hangs: no end within 0.5 s"
    time.sleep(2)
    assert not left.exists()


def test_exit_77_skips_with_the_last_words() -> None:
    verdict = Judge(FIXTURES, OneShotAdapter(words("honest")), "f32").judge("module/softcap/cap-30")
    assert (verdict.outcome, verdict.note) == ("skip", "not yet")


def test_a_model_s_case_names_the_checkpoint() -> None:
    forward = next(case_id for case_id in FIXTURES.case_ids if case_id.endswith("/no-cache"))
    show = [sys.executable, "-c", "import json, sys; sys.exit(json.load(open(sys.argv[1]))['model_dir'])"]
    verdict = Judge(FIXTURES, OneShotAdapter(show), "f32").judge(forward)
    model = FIXTURES.case(forward).model
    assert model is not None
    assert verdict.note == f"the port died: exit 1; its last words: {FIXTURES.model_dir(model)}"


def test_a_program_that_is_not_there_is_an_error() -> None:
    verdict = Judge(FIXTURES, OneShotAdapter(["/no/such/program"]), "f32").judge(CASE)
    assert verdict.note == "the port cannot be started: /no/such/program: No such file or directory"


@pytest.mark.slow
def test_a_run() -> None:
    once = shlex.join(words("honest"))
    done = run_command("run", "--once", once, "--cases", "module/rms-norm/*")
    assert done.returncode == 0, done.stderr
    wrong = run_command("run", "--once", shlex.join(words("zero")), "--cases", CASE)
    assert wrong.returncode == 1
    command = next(line for line in wrong.stdout.splitlines() if line.startswith("reproduce: "))
    assert shlex.split(command)[3:5] == ["--impl", f"once:{shlex.join(words('zero'))}"]
    again = run_suite(*shlex.split(command)[3:])
    assert again.returncode == 1
    assert "first divergence: y" in again.stdout


def test_one_of_both_commands() -> None:
    done = run_command("run", "--once", "a", "--port", "b")
    assert (done.returncode, done.stderr) == (2, "--port, --once, --dump: got more than one of them, expected one\n")
