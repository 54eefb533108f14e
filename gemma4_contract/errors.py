"""The error of the fixture format."""

from __future__ import annotations

from pathlib import Path


class FixtureError(Exception):
    """A fixture cannot be used; the message is one line: which file, what was got, what was expected, what to do."""

    def __init__(self, path: Path | str, *, got: str, expected: str, cure: str) -> None:
        self.path = str(path)
        self.got = got
        self.expected = expected
        self.cure = cure
        super().__init__(" ".join(f"{path}: got {got}, expected {expected}; {cure}".split()))
