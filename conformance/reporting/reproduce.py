"""The command that puts one case again."""

from __future__ import annotations

import shlex

from conformance.adapters.base import PORT
from gemma4_contract import Fixtures, default_root
from gemma4_contract.full_size import FullSize


def again(fixtures: Fixtures, impl: str, profile: str, case: str, tokens: int | None = None) -> str:
    """The command that puts a case of these fixtures, or its first tokens, to an implementation."""
    asked = f"{_who(impl)} --profile {profile} --cases '{case}'"
    if isinstance(fixtures, FullSize):
        command, root = f"gemma4-conformance run --levels L5 {asked}{fixtures.options}", fixtures.fixtures.root
    else:
        cut = f" --tokens {tokens}" if tokens else ""
        command, root = f"pytest conformance/ {asked}{cut}", fixtures.root
    return command if root == default_root() else f"{command} --fixtures-dir {shlex.quote(str(root))}"


def _who(impl: str) -> str:
    if impl.startswith(PORT):
        return f"--port {shlex.quote(impl.removeprefix(PORT))}"
    return f"--impl {shlex.quote(impl)}"
