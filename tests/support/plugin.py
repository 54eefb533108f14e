"""A pytest plugin for suite runs in another process: fake ports, their known failures, and packages that are missing.

Loaded with `-p tests.support.plugin` before the suite's conftest; the environment says what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

BLOCKED, KNOWN, FIXTURES = "SUITE_BLOCKED", "SUITE_KNOWN_FAILURES", "SUITE_PARROT_FIXTURES"


class Blocker(MetaPathFinder):
    """Makes packages missing."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """ModuleNotFoundError for a blocked package and everything in it."""
        if any(f"{fullname}.".startswith(f"{name}.") for name in self.names):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def block() -> None:
    """Block what the environment names."""
    names = [name for name in os.environ.get(BLOCKED, "").split(",") if name]
    if names:
        sys.meta_path.insert(0, Blocker(names))


def _install() -> None:
    from conformance.adapters import registry
    from conformance.known_failures import KnownFailures

    sys.modules["conformance.adapters.tests_plugin"] = sys.modules[__name__]
    entries = {
        name: registry._Entry(module="tests_plugin", factory=name, cure="none")
        for name in ("parrot", "wrong", "skipping", "raising")
    }
    registry.ADAPTERS = {**registry.ADAPTERS, **entries}
    if KNOWN in os.environ:
        path = Path(os.environ[KNOWN])
        KnownFailures.of = classmethod(lambda cls, _: cls.read(path))  # type: ignore[assignment, method-assign]


def _fixtures() -> Any:
    from gemma4_contract import Fixtures

    return Fixtures(Path(os.environ[FIXTURES]) if FIXTURES in os.environ else None)


def parrot() -> Any:
    """Right everywhere."""
    from tests.support import fakes

    return fakes.parrot(_fixtures())


def wrong() -> Any:
    """Its RoPE at position 511 and the output of every first layer are doubled."""
    from tests.support import fakes

    def double(taps: dict[str, Any]) -> dict[str, Any]:
        return {name: value * 2 if name == "model.layers.0.output" else value for name, value in taps.items()}

    port = fakes.parrot(_fixtures(), double)
    right = port.answer

    def answer(request: Any) -> dict[str, Any]:
        taps = right(request)
        return {"y": taps["y"] * 2} if request.case.endswith("-at-511") else taps

    port.answer = answer
    return port


def skipping() -> Any:
    """Skips everything."""
    from tests.support import fakes

    return fakes.skipper()


def raising() -> Any:
    """Raises at every question."""
    from tests.support import fakes

    return fakes.raiser(ValueError("nothing\nworks"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Before the suite's own conftest looks for its port; an import alone changes nothing."""
    _install()


block()
