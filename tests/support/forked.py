"""`python` as a process forked from one that has imported the suite and the command.

To import them takes most of a run's time, and tests run them hundreds of times. What the tests block (torch, MLX, the
reference) is not imported before the fork.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support import ROOT
from tests.support.environment import environment

CAN_FORK = sys.platform == "linux"
"""Libraries of macOS may not be used after a fork."""


def run_forked(words: Sequence[str], env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in the project's root; the words are `-m MODULE ...` or `-c PROGRAM ...`."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "stdout", Path(folder) / "stderr"
        request = {"words": list(words), "env": dict(env), "out": str(out), "err": str(err)}
        server.stdin.write(f"{json.dumps(request)}\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], timeout)[0]:
            _end(server)
            _server.cache_clear()
            raise subprocess.TimeoutExpired(list(words), timeout)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(
            list(words), code, *(file.read_text(encoding="utf-8") for file in (out, err))
        )


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process to fork from, one for all runs."""
    server = subprocess.Popen(
        [sys.executable, "-c", "from tests.support.forked import serve; serve()"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    """End the process and what it forked."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.communicate()


def serve() -> None:
    """Fork at every request on stdin, one after the other, and answer with its exit code."""
    import pytest  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            return _run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _run(words: list[str], env: dict[str, str], out: str, err: str) -> None:
    """What Python does with these words, in this process."""
    for number, file in enumerate((os.devnull, out, err)):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    sys.path[1:1] = [folder for folder in env["PYTHONPATH"].split(os.pathsep) if folder not in sys.path]
    option, what, *arguments = words
    if option == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [option, *arguments]
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(what, "<string>", "exec"), names)
