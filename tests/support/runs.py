"""The suite and the command as their users run them: in another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.environment import environment
from tests.support.forked import CAN_FORK, run_forked
from tests.support.plugin import BLOCKED

PORTS = ROOT / "tests" / "support" / "ports"
"""Programs that are ports: run by their paths, never imported."""

LONGEST = 120
"""Seconds that a run may take."""

Done = subprocess.CompletedProcess[str]


FAKES = {"PYTEST_ADDOPTS": "-p tests.support.plugin -p no:cacheprovider", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""With the fake ports to be named; other people's plugins (hypothesis, benchmark) take a second to load."""
XDIST = ("-p", "xdist", "-n", "2")
ALONE_OR_SHARED = [(), pytest.param(XDIST, marks=pytest.mark.slow)]
"""Parameters of a test that runs the suite: in one process, and shared out by xdist."""


def run_suite(*options: str, env: Mapping[str, str] | None = None) -> Done:
    """`python -m pytest conformance/ ...` with the fake ports of `tests.support.plugin`."""
    return _python(["-m", "pytest", "conformance/", *options], {**FAKES, **(env or {})})


def run_command(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """`gemma4-conformance ...`, with the packages that the environment blocks missing."""
    program = "import tests.support.plugin; from conformance.cli import main; main()"
    return _python(["-c", program, *arguments], env or {})


def _python(words: Sequence[str], extra: Mapping[str, str]) -> Done:
    """Python with nothing imported where packages are blocked, and else forked, which is quicker."""
    if CAN_FORK and BLOCKED not in extra:
        return run_forked(words, environment(extra), LONGEST)
    return run([sys.executable, *words], extra)


def run(command: Sequence[str] | str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Done:
    """A command, in the project's root unless another folder is given."""
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


def one_line(text: str) -> str:
    """The only line of a text."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]
