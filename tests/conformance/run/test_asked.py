"""What a run asks of a port, and what it does not hold against it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from conformance.adapters.base import Hello
from conformance.adapters.registry import BadOption
from conformance.conftest import _SaysWhatWasJudged
from conformance.judging.judge import Judge
from conformance.judging.levels import Tally
from conformance.run.session import Session
from tests.support import ROOT
from tests.support.commands import call_command
from tests.support.fakes import Port
from tests.support.installed import FIXTURES
from tests.support.runs import run_suite

ROPE, NORM = "module/rope/default-at-*", "module/rms-norm/zeros"


def test_a_kind_that_hello_does_not_name_is_not_asked() -> None:
    class RotatesAlone(Port):
        def hello(self) -> Hello:
            return dataclasses.replace(super().hello(), kinds=("rope",))

    def breaks(_: object) -> dict[str, object]:
        raise AssertionError("it was asked")

    port = RotatesAlone(breaks)  # type: ignore[arg-type]
    verdict = Judge(FIXTURES, port, "f32").judge(NORM)
    assert (verdict.outcome, verdict.note) == ("skip", "no kind rms_norm")
    assert Judge(FIXTURES, port, "f32").judge("module/rope/default-at-1").outcome == "error"


def test_several_patterns_ask_what_any_of_them_matches() -> None:
    ids = {item.id for item in Session("oracle", "f32", patterns=[ROPE, NORM]).items}
    assert NORM in ids
    assert len(ids) > 3
    assert ids == {case for case in FIXTURES.case_ids if case == NORM or case.startswith(ROPE.removesuffix("*"))}


def test_an_empty_pattern_is_told() -> None:
    with pytest.raises(BadOption, match=r"^--cases: got '', expected a glob over case ids"):
        Session("oracle", "f32", patterns=["", NORM])


def test_the_command_takes_several_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call_command(
        capsys, monkeypatch, "run", "--impl", "oracle", "--cases", ROPE, "--cases", NORM, "--json"
    )
    assert code == 0
    assert sum(json.loads(out)["levels"]["L1"].values()) > 3
    assert call_command(capsys, monkeypatch, "run", "--impl", "oracle", "--cases", "")[0] == 2


WARNING = """
import warnings
from conformance.adapters.oracle import OracleAdapter

class Warns(OracleAdapter):
    def run(self, request):
        warnings.warn("an old function of the port", DeprecationWarning, stacklevel=1)
        return super().run(request)
"""


def test_a_warning_of_a_port_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "warning_port.py").write_text(WARNING)
    done = run_suite(
        "--impl",
        "warning_port:Warns",
        "--cases",
        ROPE,
        "--cases",
        NORM,
        env={"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an old function of the port" in done.stdout  # told, at the end


def test_the_run_ends_with_one_sentence_on_what_was_judged() -> None:
    done = run_suite("--impl", "oracle", "--cases", NORM)
    assert "in f32: 1 of 1 questions judged; a level is reached only by a run of all cases" in done.stdout


def test_the_sentence_says_which_level_was_reached_and_what_keeps_the_next_away() -> None:
    says = _SaysWhatWasJudged(Session("oracle", "f32", patterns=[NORM]))
    says.tallies = {"L0": Tally(counts={"pass": 9}), "L1": Tally(counts={"pass": 3, "fail": 2})}
    assert says.level(whole=True) == "level reached: L0; L1 has 2 fail, 3 pass"
    del says.tallies["L1"]
    assert says.level(whole=True) == "level reached: L0"
