"""The command that runs one case again, and the options that name a user's own checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path

from conformance.adapters.base import PORT
from gemma4_contract import Fixtures, default_root


def rerun_command(fixtures: Fixtures, impl: str, profile: str, case: str, tokens: int | None = None) -> str:
    """The command that runs an implementation on one case of these fixtures, or on its first tokens."""
    what = f"{_who(impl)} --profile {profile} --cases '{case}'"
    root = (fixtures.within or fixtures).root
    if fixtures.weights is None:
        command = f"pytest conformance/ {what}" + (f" --tokens {tokens}" if tokens else "")
    else:
        command = f"gemma4-conformance run --levels L5 {what}{options(fixtures)}"
    return command if root == default_root() else f"{command} --fixtures-dir {shlex.quote(str(root))}"


def options(fixtures: Fixtures) -> str:
    """The options that name a user's own checkpoint and goldens; "" for other fixtures."""
    own = fixtures.weights is not None and fixtures.weights.is_own
    return checkpoint_options(fixtures.weights.root, fixtures.root) if fixtures.weights and own else ""


def checkpoint_options(checkpoint: Path, goldens: Path) -> str:
    """The options that name a checkpoint and its goldens."""
    return f" --checkpoint {shlex.quote(str(checkpoint))} --goldens {shlex.quote(str(goldens))}"


def _who(impl: str) -> str:
    if impl.startswith(PORT):
        return f"--port {shlex.quote(impl.removeprefix(PORT))}"
    return f"--impl {shlex.quote(impl)}"
