"""A cache and an index of the tests' own, for whatever fetches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("GEMMA4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)


@pytest.fixture
def server(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:  # noqa: ARG001 (first of all)
    """An index that holds the small packages, and an empty cache."""
    from tests.support.fetch_fakes import publish, serving

    with serving() as running:
        publish(monkeypatch, running)
        yield running
