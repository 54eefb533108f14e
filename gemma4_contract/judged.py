"""The digests of all that decides a verdict on tensors, which reports and score tables are bound to.

Prose does not enter it, nor what only groups cases: a new sentence, a new link or a new known mistake invalidates no
result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4_contract import tensors
from gemma4_contract.errors import FixtureError
from gemma4_contract.files import sha256
from gemma4_contract.store import LOCAL, Fixtures
from gemma4_contract.sums import SUMS

FOLDERS = ("cases", "floors", "models")
"""The folders that a verdict on tensors rests on."""

BESIDES: Mapping[str, Sequence[str]] = {
    "case.json": (
        *("level", "topic", "plan_name"),
        *("purpose", "hunts", "links", "advice", "lookalikes.known.advice", "provenance"),
    ),
    "model.json": ("purpose", "acceptance"),
}
"""Document -> its keys that group it, are for people, or tell how it was made; `a.b` is the key `b` inside of `a`."""


def judged_digest(fixtures: Fixtures) -> str:
    """The SHA-256 that names what both judgements rest on; as `chained_digest`, and the local floors."""
    return _digest(fixtures, FOLDERS, leaving=())


def chained_digest(fixtures: Fixtures) -> str:
    """The SHA-256 that names what a verdict by goldens rests on: new local floors change none.

    It covers the lines in SHA256SUMS of tensors, configurations, floors and policy; for the documents in `BESIDES` the
    lines have the digest of the document without these keys. FixtureError if SHA256SUMS cannot be read.
    """
    return _digest(fixtures, FOLDERS, leaving=(f"floors/{LOCAL}",))


def _digest(fixtures: Fixtures, taking: Sequence[str], leaving: Sequence[str]) -> str:
    top = fixtures.sums_root
    taken, left = (
        tuple((fixtures.root / folder).relative_to(top).as_posix() + "/" for folder in folders)
        for folders in (taking, leaving)
    )
    lines = (line.partition("  ") for line in tensors.read_bytes(top / SUMS).decode(errors="replace").splitlines())
    names = ((name, digest) for digest, _, name in lines if name.startswith(taken) and not name.startswith(left))
    judged = [f"{_judged(top / name, digest)}  {name}\n" for name, digest in names]
    return sha256("".join(judged).encode())


def _judged(path: Path, digest: str) -> str:
    """A file's digest without what decides no verdict; a broken document keeps its own, and `verify` says why."""
    if path.name not in BESIDES:
        return digest
    try:
        document = json.loads(tensors.read_bytes(path))
        for key in BESIDES[path.name]:
            _remove(document, key.split("."))
    except (FixtureError, ValueError, AttributeError):
        return digest
    return sha256(json.dumps(document, sort_keys=True).encode())


def _remove(document: Any, keys: Sequence[str]) -> None:
    """Remove a key from an object, or what it leads to from the objects below it."""
    if isinstance(document, list):
        for part in document:
            _remove(part, keys)
    elif len(keys) == 1:
        document.pop(keys[0], None)
    elif keys[0] in document:
        _remove(document[keys[0]], keys[1:])
