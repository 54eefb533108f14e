"""SHA256SUMS: the digest of every file of the fixtures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gemma4_contract import tensors
from gemma4_contract.documents import RESTORE
from gemma4_contract.errors import FixtureError
from gemma4_contract.files import sha256, write_atomic

SUMS = "SHA256SUMS"


def write_sums(root: Path, files: Iterable[Path]) -> None:
    """Write SHA256SUMS of these files, in the form that `sha256sum -c` reads."""
    lines = [f"{sha256(path.read_bytes())}  {path.relative_to(root).as_posix()}\n" for path in files]
    write_atomic(root / SUMS, "".join(lines).encode())


def read_sums(root: Path) -> dict[str, str]:
    """File name -> digest, from SHA256SUMS; FixtureError if it is missing or not text."""
    path = root / SUMS
    try:
        lines = tensors.read_bytes(path).decode().splitlines()
    except UnicodeDecodeError:
        raise FixtureError(path, got="no UTF-8 text", expected="SHA-256 sums", cure=RESTORE) from None
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def sum_faults(root: Path, files: Iterable[Path]) -> Iterator[FixtureError]:
    """The files that SHA256SUMS lists and that are missing or differ, and the files that it does not list."""
    path = root / SUMS
    try:
        expected = read_sums(root)
    except FixtureError:
        yield FixtureError(path, got="no readable file", expected="SHA-256 sums of all fixtures", cure=RESTORE)
        return
    actual = {path.relative_to(root).as_posix(): path for path in files}
    for name in sorted(expected.keys() - actual.keys()):
        yield FixtureError(root / name, got="no file", expected=f"one, as {SUMS} says", cure=RESTORE)
    for name in sorted(actual.keys() - expected.keys()):
        yield FixtureError(actual[name], got="a file", expected=f"none: {SUMS} does not list it", cure=RESTORE)
    for name in sorted(actual.keys() & expected.keys()):
        digest = sha256(actual[name].read_bytes())
        if digest != expected[name]:
            yield FixtureError(
                actual[name], got=f"SHA-256 {digest}", expected=f"{expected[name]} as {SUMS} says", cure=RESTORE
            )


def first_difference(root: Path, other: Path) -> FixtureError | None:
    """The first file that two folders list in different ways; None if both list the same.

    None also if SHA256SUMS of `root` cannot be read, which `verify` reports; FixtureError if that of `other` cannot.
    """
    theirs = read_sums(other)
    try:
        mine = read_sums(root)
    except FixtureError:
        return None
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            got, expected = (sums.get(name, "no such file") for sums in (mine, theirs))
            cure = "vendor the fixtures of the version that is installed, or install theirs"
            return FixtureError(root / name, got=got, expected=f"{expected} as in {other}", cure=cure)
    return None
