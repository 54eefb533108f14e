"""The environment of the processes that tests start."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support import ROOT


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without what pytest and the suite read from it, with the helpers importable."""
    # Under CI pytest repeats every failure in its summary.
    read = ("PYTEST_", "GEMMA4_", "COV_", "COLUMNS", "CI", "BUILD_NUMBER")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(read)}
    path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", "")))
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **(extra or {})}
