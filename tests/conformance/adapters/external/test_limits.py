"""What a port may use: one that takes too much is ended, with all that it started, and told so."""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from conformance.adapters.base import Adapter
from conformance.adapters.external import limits as limits_module
from conformance.adapters.external.limits import Limits, private_memory
from conformance.adapters.external.one_shot import OneShotAdapter
from conformance.adapters.external.process import ProcessAdapter
from conformance.judging.judge import Judge
from conformance.reporting import jsonl as report
from tests.support.installed import FIXTURES
from tests.support.runs import PORTS, run_command

CASE = "module/rms-norm/large"
GIB = 0.2
TOO_MUCH = ("error", "the port uses more than 0.2 GiB of memory")
MODES = {"--port": ("saboteur.py", ProcessAdapter), "--once": ("once.py", OneShotAdapter)}
TELLS_SHARED = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells mapped files from a port's own")


def words(mode: str, how: str) -> list[str]:
    return [sys.executable, str(PORTS / MODES[mode][0]), how]


@pytest.fixture(params=MODES)
def started(request: pytest.FixtureRequest) -> Callable[[str], Adapter]:
    """A port that takes memory as told, asked in both modes."""
    mode: str = request.param

    def start(how: str) -> Adapter:
        adapter: Adapter = MODES[mode][1](words(mode, how), Limits(seconds=20.0 if "gorges" in how else 5.0, gib=GIB))
        close = getattr(adapter, "close", None)
        if close is not None:
            request.addfinalizer(close)
        return adapter

    return start


def ends(pid: int) -> bool:
    """Whether a process ends soon; one that nobody waits for stays as a zombie where nobody adopts it."""
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_port_that_takes_too_much_is_told(started: Callable[[str], Adapter]) -> None:
    verdict = Judge(FIXTURES, started("gorges"), "f32").judge(CASE)
    assert (verdict.outcome, verdict.note) == TOO_MUCH


@pytest.mark.parametrize("how", ["its child gorges", "its emancipated child gorges"])
def test_what_it_started_counts_and_ends_with_it(
    started: Callable[[str], Adapter], how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLUTTON", str(tmp_path / "pid"))
    verdict = Judge(FIXTURES, started(how), "f32").judge(CASE)
    assert (verdict.outcome, verdict.note) == TOO_MUCH
    assert ends(int((tmp_path / "pid").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_what_got_away_with_its_output_holds_nobody_up(started: Callable[[str], Adapter]) -> None:
    start = time.monotonic()
    verdict = Judge(FIXTURES, started("its grandchild gets away"), "f32").judge(CASE)
    assert (verdict.outcome, verdict.note.partition(":")[0]) == ("error", "the port hangs")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("how", ["nibbles", pytest.param("maps", marks=TELLS_SHARED)])
def test_a_port_within_its_limit_is_not_accused(started: Callable[[str], Adapter], how: str) -> None:
    assert Judge(FIXTURES, started(how), "f32").judge(CASE).outcome == "pass"


@pytest.mark.parametrize("mode", ["--port", pytest.param("--once", marks=pytest.mark.slow)])
def test_the_run_goes_on_with_the_next_case(mode: str, tmp_path: Path) -> None:
    how = "gorges at large" if mode == "--port" else "gorges"
    options = ("--cases", "module/[rs]*", "--levels", "L1", "--memory-limit", str(GIB), "--report", str(tmp_path))
    done = run_command("run", mode, shlex.join(words(mode, how)), *options, "--json")
    assert done.returncode == 1, done.stderr
    counts = json.loads(done.stdout)["levels"]["L1"]
    norms = sum(case_id.startswith("module/rms-norm/") for case_id in FIXTURES.case_ids)
    assert counts["fail"] == (1 if mode == "--port" else norms)
    assert counts.get("pass", 0) == norms - counts["fail"]
    assert counts["skip"] > 0
    _, lines = report.read(tmp_path)
    assert {(line.outcome, line.note) for line in lines.values() if line.outcome == "error"} == {TOO_MUCH}


def test_the_text_of_a_run_says_so() -> None:
    port = shlex.join(words("--port", "gorges"))
    done = run_command("run", "--port", port, "--cases", CASE, "--memory-limit", "0.1")
    assert "\nthe port uses more than 0.1 GiB of memory\n" in done.stdout


def test_the_smallest_limit() -> None:
    done = run_command("run", "--memory-limit", "0")
    assert done.returncode == 2
    assert "--memory-limit" in done.stderr


def test_most_of_the_machine_is_the_default() -> None:
    assert Limits().gib == pytest.approx(0.8 * psutil.virtual_memory().total / 2**30, abs=0.05)


# How the time passes


def never(seconds: float) -> None:
    time.sleep(seconds)
    raise queue.Empty


def test_an_answer_that_comes_at_once_costs_no_look_at_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(limits_module, "private_memory", lambda pid: looked.append(pid) or 0)
    assert Limits().keep(7, lambda seconds: 0 < seconds < 0.1, queue.Empty)
    assert looked == []
    with pytest.raises(queue.Empty):
        Limits(seconds=0.5).keep(7, never, queue.Empty)
    assert 3 <= len(looked) <= 5


def test_the_time_is_kept_to() -> None:
    start = time.monotonic()
    with pytest.raises(queue.Empty):
        Limits(seconds=0.3).keep(0, never, queue.Empty)
    assert 0.3 <= time.monotonic() - start < 1.5


def test_a_process_that_has_ended_holds_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    assert private_memory(ended.pid) == 0
