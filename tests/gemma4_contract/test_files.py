"""Files are written completely or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest

from gemma4_contract.files import write_atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.bin"
    write_atomic(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o644

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    with pytest.raises(TypeError):
        write_atomic(path, "no bytes")  # type: ignore[arg-type]  # fails in the middle of writing
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
