"""The suite and the command as their users run them: in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import ROOT

PORTS = ROOT / "tests" / "support" / "ports"
"""Programs that are ports: run by their paths, never imported."""

Done = subprocess.CompletedProcess[str]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without what pytest and the suite read from it, with the helpers importable."""
    # Under CI pytest repeats every failure in its summary.
    read = ("PYTEST_", "GEMMA4_", "COV_", "COLUMNS", "CI", "BUILD_NUMBER")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(read)}
    path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", "")))
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **(extra or {})}


FAKES = {"PYTEST_ADDOPTS": "-p tests.support.plugin -p no:cacheprovider", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""With the fake ports to be named; other people's plugins (hypothesis, benchmark) take a second to load."""
XDIST = ("-p", "xdist", "-n", "2")


def run_suite(*options: str, env: Mapping[str, str] | None = None) -> Done:
    """`python -m pytest conformance/ ...` with the fake ports of `tests.support.plugin`."""
    return run([sys.executable, "-m", "pytest", "conformance/", *options], {**FAKES, **(env or {})})


def run_command(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """`gemma4-conformance ...`, with the packages that the environment blocks missing."""
    program = "import tests.support.plugin; from conformance.cli import main; main()"
    return run([sys.executable, "-c", program, *arguments], env)


def run(command: Sequence[str] | str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Done:
    """A command, in the project's root unless another folder is given."""
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def one_line(text: str) -> str:
    """The only line of a text."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]
