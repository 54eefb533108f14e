"""Several processes judge as one does; and none of them outlives the run, however it ends."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from junitparser import JUnitXml

from conformance.reporting import jsonl as report
from conformance.run import jobs
from gemma4_contract import FixtureError, Fixtures
from tests.support import ROOT
from tests.support.runs import PORTS, Done, environment, one_line, run_command
from tests.support.trees import edit_json, small_tree

NORMS = sorted(case_id for case_id in Fixtures().case_ids if case_id.startswith("module/rms-norm/"))
FIRST, SECOND, *LATER = NORMS
MOMENT = 60.0  # seconds in which anything should happen, however busy the machine is


def saboteur(how: str) -> str:
    return shlex.join([sys.executable, str(PORTS / "saboteur.py"), how])


def judged(directory: Path, count: int, *options: str) -> Done:
    written = ("--report", str(directory / "report"), "--junit", str(directory / "junit.xml"))
    return run_command("run", *options, "--jobs", str(count), *written)


# The same as one


@pytest.mark.slow
@pytest.mark.parametrize("how", ["zero", f"slow at {FIRST}", f"crash at {SECOND}"])
def test_what_is_told_does_not_depend_on_how_many_judge(how: str, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(f"f32 {FIRST}  # yet to be mended\n", encoding="utf-8")
    told = []
    for count in (1, 3):
        directory = tmp_path / "run"
        asked = ("--port", saboteur(how), "--cases", "module/[rs]*", "--known-failures", str(known))
        done = judged(directory, count, *asked, "--write-known-failures", str(tmp_path / "seen.txt"))
        kept = {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
        told.append((done.returncode, done.stdout, done.stderr, (tmp_path / "seen.txt").read_bytes(), kept))
    one, several = told
    assert one == several
    assert one[0] == 1
    _, lines = report.read(tmp_path / "run" / "report")
    assert {line.outcome for line in lines.values()} >= {"skip", "fail" if how == "zero" else "pass"}


@pytest.mark.slow
def test_an_implementation_of_python_is_judged_in_the_same_way(tmp_path: Path) -> None:
    asked = ("--impl", "mlx_impl", "--cases", "*/e2b-mini/*l9*", "--levels", "L1-L3")
    for count in (1, 2):
        assert judged(tmp_path / str(count), count, *asked).returncode == 0
    one, two = ((tmp_path / name / "report" / "report.jsonl").read_bytes() for name in ("1", "2"))
    assert one == two
    assert one.count(b"\n") > 3


@pytest.mark.slow
def test_each_process_has_a_port_of_its_own_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOTEUR_ASKED", str(tmp_path / "asked"))
    done = run_command("run", "--port", saboteur("slow"), "--cases", "module/rms-norm/*", "--jobs", "3")
    assert done.returncode == 0, done.stderr
    asked = asked_of(tmp_path / "asked")
    assert sorted(case for _, case in asked if case in NORMS) == NORMS
    assert len({pid for pid, case in asked if case in NORMS}) == 3
    assert not any(psutil.pid_exists(pid) for pid, _ in asked)


def test_no_more_processes_than_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOTEUR_ASKED", str(tmp_path / "asked"))
    done = run_command("run", "--port", saboteur("honest"), "--cases", FIRST, "--jobs", "5")
    assert done.returncode == 0, done.stderr
    assert len({pid for pid, _ in asked_of(tmp_path / "asked")}) <= 2  # the run's own, which says hello, and one more


def asked_of(path: Path) -> list[tuple[int, str]]:
    """The process and the question, of all that a saboteur was asked."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [(int(pid), case) for pid, case in (line.split() for line in lines)]


# However it ends


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_at_once_with_what_it_saw(
    count: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Ctrl-C reaches every process of the terminal; one port hangs, another has long answered what comes later."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from conformance.cli import main"
    )
    written = ["--report", str(tmp_path / "report"), "--junit", str(tmp_path / "junit.xml")]
    asked = ["run", "--port", saboteur(f"hang at {SECOND}"), "--cases", "module/rms-norm/*", "--jobs", str(count)]
    run = subprocess.Popen(
        [sys.executable, "-c", f"{program}; main()", *asked, *written],
        cwd=ROOT,
        env=environment({"SABOTEUR_ASKED": str(tmp_path / "asked")}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    request.addfinalizer(run.wait)
    request.addfinalizer(run.kill)
    last = SECOND if count == 1 else LATER[-1]
    wait_for(lambda: last in [case for _, case in asked_of(tmp_path / "asked")])

    def ports_of_the_run() -> list[psutil.Process]:
        processes = psutil.Process(run.pid).children(recursive=True)
        return [process for process in processes if str(PORTS / "saboteur.py") in process.cmdline()]

    expected = 1 if count == 1 else 3
    wait_for(lambda: len(ports_of_the_run()) == expected)
    processes = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=MOMENT)
    _, alive = psutil.wait_procs(processes, timeout=MOMENT)
    assert alive == []
    _, lines = report.read(tmp_path / "report")
    assert (run.returncode, out) == (130, "")
    assert one_line(err) == f"interrupted: {len(lines)} of {len(NORMS)} cases were judged"
    assert set(lines) >= {FIRST, *(LATER[:-1] if count > 1 else ())}
    assert SECOND not in lines
    assert sum(suite.tests for suite in JUnitXml.fromfile(str(tmp_path / "junit.xml"))) == len(lines)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOMENT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "how"), [("Dying", "signal 9"), ("Leaving", "exit 7")])
def test_a_process_that_dies_ends_the_run_with_one_line(name: str, how: str, tmp_path: Path) -> None:
    done = judged(tmp_path, 2, "--impl", f"tests.support.in_process:{name}", "--cases", "module/rms-norm/*")
    assert done.returncode == 3
    assert one_line(done.stderr) == f"--jobs: the process for {SECOND} died: {how}; try --jobs 1"
    _, lines = report.read(tmp_path / "report")
    assert list(lines) == [FIRST]


def test_a_fault_of_the_fixtures_is_the_same_line(tmp_path: Path) -> None:
    root = small_tree(tmp_path / "fixtures")
    rope = sorted(case_id for case_id in Fixtures(root).case_ids if case_id.startswith("module/rope/"))
    edit_json(root / "cases" / rope[0] / "case.json", lambda case: case["golden"].update(sha256="0" * 64))
    asked = ("--impl", "mlx_impl", "--cases", rope[0], "--fixtures-dir", str(root))
    one, two = (run_command("run", *asked, "--jobs", count) for count in "12")
    assert (one.returncode, two.returncode) == (2, 2)
    assert one_line(two.stderr) == one_line(one.stderr)
    assert rope[0] in two.stderr


def test_an_error_of_the_fixtures_travels() -> None:
    assert jobs  # which teaches pickle how
    error = FixtureError("a/b.json", got="one  thing", expected="another", cure="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_no_jobs_are_no_run() -> None:
    done = run_command("run", "--jobs", "0")
    assert done.returncode == 2
    assert "--jobs" in done.stderr
