"""Fixtures of the suite with six cases, and a catalogue of three mistakes."""

from __future__ import annotations

import pytest

from conformance.selftest import kill_matrix
from gemma4_contract import Fixtures
from reference import mutants
from tests.support.kill_matrices import FEW, GELU, ROPE, SCALE


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Fixtures:
    """The fixtures with six cases, and a catalogue of three mistakes."""
    catalogue = {mutant.id: mutant for mutant in (ROPE, SCALE, GELU)}
    for module in (kill_matrix, mutants):
        monkeypatch.setattr(module, "MUTANTS", catalogue)
    fixtures = Fixtures()
    monkeypatch.setitem(fixtures.__dict__, "case_ids", FEW)
    return fixtures
