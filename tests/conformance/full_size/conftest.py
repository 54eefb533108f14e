"""Fixtures that hold two small models at "full size"."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import app
from gemma4_contract import Fixtures
from reference import full_size
from tests.support.small_full_size import TINY, run


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Fixtures with two small models at "full size", their floors and weights: (fixtures, cache)."""
    root, cache = tmp_path_factory.mktemp("fixtures") / "fixtures", tmp_path_factory.mktemp("cache")
    shutil.copytree(Fixtures().root, root, ignore=shutil.ignore_patterns("full"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_size, "FULL_SIZE", TINY)
        patch.setenv("GEMMA4_CACHE", str(cache))
        for name in TINY:
            where = ["--fixtures-dir", str(root)]
            for command in (
                ["export", "--model", name, *where],
                ["materialize", name],
                ["floors", "--model", name, "--profile", "f32", *where],
            ):
                ended = run(app, command)
                assert ended.exit_code == 0, ended.output
    return root, cache


@pytest.fixture
def places(tree: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    root, cache = tree
    monkeypatch.setenv("GEMMA4_CACHE", str(cache))
    return root, cache
