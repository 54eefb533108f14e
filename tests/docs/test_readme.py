"""The README: short, its numbers the self-test's, its commands those of CI, its way to a verdict one that works."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conformance.selftest.tables import headline, read_scores, read_trials
from tests.support import ROOT
from tests.support.markdown import block, code, read
from tests.support.runs import run

README = read("README.md")
CI = ROOT / ".ci" / "run"


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120
    assert len(README.encode()) <= 8_000


def test_its_two_numbers_are_the_self_test_s() -> None:
    line = headline(read_scores(ROOT), read_trials(ROOT))
    assert line in README, "run `python -m conformance.selftest.tables`"
    assert README[: README.index(line)].count("\n") < 8


def test_the_headline_counts() -> None:
    assert re.fullmatch(
        r"It catches \*\*\d+ of \d+\*\* known mistakes and wrongly accuses \*\*0 of \d+\*\* honest implementations "
        r"\(in float32;",
        headline(read_scores(ROOT), read_trials(ROOT)),
    )


@pytest.mark.skipif(not CI.is_file(), reason="a source distribution has no .ci")
def test_its_commands_are_those_that_ci_runs() -> None:
    ours = [line for body in code(README) for line in body.splitlines() if "pip install -e" in line]
    assert len(ours) == 2
    lines = CI.read_text(encoding="utf-8").replace("--quiet ", "").replace("--editable", "-e").splitlines()
    steps = [line.replace('"$venv/bin/', ".venv/bin/").replace('"$venv"', ".venv").replace('"', "") for line in lines]
    place = -1
    for command in " && ".join(ours).split(" && "):
        place = steps.index(command, place + 1)


@pytest.mark.slow
def test_five_lines_judge_a_port(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("c++ is not installed")
    (tmp_path / "ports").symlink_to(ROOT / "ports")
    commands = block(README, "judge your port").splitlines()
    assert len(commands) == 5
    said = []
    for command in commands:
        done = run(command, cwd=tmp_path)
        assert done.returncode == 0, command + done.stdout + done.stderr
        said.append(done.stdout)
    _, listed, judged, diagnosed, shown = said
    assert listed.startswith("module/")
    assert "report: report/report.html\n" in judged
    assert (tmp_path / "report" / "report.html").is_file()
    assert diagnosed == "nothing failed\n"
    assert "cure: " in shown
