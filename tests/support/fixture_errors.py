"""The shape of a FixtureError."""

from pathlib import Path

from gemma4_contract import FixtureError


def one_line(error: FixtureError, path: Path, *parts: str) -> bool:
    text = str(error)
    assert text.startswith(f"{path}: got ")
    assert "\n" not in text
    assert ", expected " in text
    assert "; " in text.partition(", expected ")[2]  # the cure
    assert all(part in text for part in parts), text
    return (error.path, error.got in text, error.expected in text, error.cure in text) == (str(path), True, True, True)
