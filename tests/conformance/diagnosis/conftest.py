"""The command in this process."""

from __future__ import annotations

import functools

import pytest

from reference import mutants
from tests.support.commands import Call, call_command
from tests.support.diagnoses import FEW


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command in this process, with a catalogue of three mistakes."""
    monkeypatch.delenv("GEMMA4_FIXTURES", raising=False)
    monkeypatch.setattr(mutants, "MUTANTS", FEW)

    return functools.partial(call_command, capsys, monkeypatch)
