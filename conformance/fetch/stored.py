"""Published files in the cache: verified, then stored completely."""

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
    """A published file in the cache, and its source."""

    name: str
    path: Path
    published: Published
    source: str
    damaged: bool = False
    """Whether it replaced a damaged file."""


def in_cache(name: str, path: Path, published: Published) -> Fetched | None:
    """The file, if it is in the cache and undamaged."""
    if not cache.verified(path, published):
        return None
    return Fetched(name=name, path=path, published=published, source=THERE)


def store(name: str, path: Path, published: Published, data: bytes, *, source: str, cure: str) -> Fetched:
    """Store the published bytes; FetchError for other bytes, which are not stored."""
    if sha256(data) != published.sha256:
        got = f"{len(data):,} bytes with sha256 {sha256(data)}"
        raise FetchError(f"{name}: got {got}, expected {published.size:,} with {published.sha256}; {cure}")
    if known := in_cache(name, path, published):
        return known
    damaged = path.exists()
    write_atomic(path, data)
    return Fetched(name=name, path=path, published=published, source=source, damaged=damaged)
