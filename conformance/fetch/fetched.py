"""A file that was fetched: verified, then stored whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conformance.fetch import cache
from conformance.fetch.errors import FetchError
from conformance.fetch.published import Published
from gemma4_contract.files import sha256, write_atomic

THERE = "already there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A published file in the cache, and from where it came there."""

    name: str
    path: Path
    published: Published
    source: str
    damaged: bool = False
    """Whether it took the place of a damaged one."""


def there(name: str, path: Path, published: Published) -> Fetched | None:
    """The file, if it lies undamaged in the cache."""
    if not cache.verified(path, published):
        return None
    return Fetched(name=name, path=path, published=published, source=THERE)


def keep(name: str, path: Path, published: Published, data: bytes, *, source: str, cure: str) -> Fetched:
    """Store what was published; FetchError, and nothing stored, for anything else."""
    if sha256(data) != published.sha256:
        got = f"{len(data):,} bytes with sha256 {sha256(data)}"
        raise FetchError(f"{name}: got {got}, expected {published.size:,} with {published.sha256}; {cure}")
    if kept := there(name, path, published):
        return kept
    damaged = path.exists()
    write_atomic(path, data)
    return Fetched(name=name, path=path, published=published, source=source, damaged=damaged)
