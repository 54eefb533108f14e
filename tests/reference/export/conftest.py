"""Stored fixtures, cut to what a small export makes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gemma4_contract import Fixtures
from gemma4_contract.schema import write_schemas
from reference.layouts import LAYOUTS
from reference.models import MODELS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The part of the stored fixtures that an export of `few` makes, and an exporter that makes no more."""
    from reference.export import exporter  # torch may be missing
    from tests.support.exports import BY_HAND, LAYOUT, MODEL, few

    monkeypatch.setattr(exporter, "MODELS", {MODEL: MODELS[MODEL]})
    monkeypatch.setattr(exporter, "LAYOUTS", {LAYOUT: LAYOUTS[LAYOUT]})
    monkeypatch.setattr(exporter, "all_drafts", few)
    stored, root = Fixtures().root, tmp_path / "fixtures"
    for name in (
        *BY_HAND,
        "mistakes",
        f"models/{MODEL}",
        f"models/{LAYOUT}",
        *(f"cases/{draft.id}" for draft in few()),
    ):
        shutil.copytree(stored / name, root / name)
    write_schemas(root)
    Fixtures(root).write_sums()
    return root
