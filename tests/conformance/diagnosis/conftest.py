"""The command in this process."""

from __future__ import annotations

import sys

import pytest

from conformance import cli
from reference import mutants
from tests.support.diagnoses import FEW, Called


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Called:
    """The command in this process, with a catalogue of three mistakes."""
    monkeypatch.delenv("GEMMA4_FIXTURES", raising=False)
    monkeypatch.setattr(mutants, "MUTANTS", FEW)

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gemma4-conformance", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stopped.value.code or 0), out, err

    return called
