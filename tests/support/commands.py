"""`gemma4-conformance` in the process of the test."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from conformance import cli

Captured = tuple[int, str, str]
Call = Callable[..., Captured]


def call_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Captured:
    """Exit code, stdout and stderr of the command, which never shows a traceback."""
    monkeypatch.setattr(sys, "argv", ["gemma4-conformance", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    code = stopped.value.code or 0
    assert isinstance(code, int)
    return code, out, err
