"""Reads a file that the user names."""

from __future__ import annotations

from pathlib import Path

from gemma4_contract import FixtureError


def read_users_file(path: Path, name: str) -> tuple[Path, bytes]:
    """The path and content of the file `name` in a folder, or of the file itself; FixtureError if it cannot be read."""
    file = path / name if path.is_dir() else path
    try:
        return file, file.read_bytes()
    except OSError as error:
        raise FixtureError(
            file,
            got=error.strerror or "an error",
            expected=f"{name}, or a checkpoint's folder that holds it",
            cure="--from takes index, hub or a PATH",
        ) from None
