"""Fetches chat templates from two packages on the index, from the hub, or from a file of the user."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from conformance.fetch import cache
from conformance.fetch.errors import FetchError
from conformance.fetch.hub import hub_file
from conformance.fetch.index import Index
from conformance.fetch.large_templates import large_from_small
from conformance.fetch.llama_cpp import Sources
from conformance.fetch.published import HUB, LLAMA_CPP, SMALL_MEMBERS, TEMPLATES, TRL
from conformance.fetch.stored import Fetched, in_cache, store
from conformance.fetch.users_file import read_users_file
from gemma4_contract import FixtureError
from gemma4_contract.files import sha256

FILE = "chat_template.jinja"
_IN_LLAMA_CPP = ("large@2026-04-02", "large@2026-04-10")
_SMALL_OF = {"large@2026-04-28": "small@2026-04-28", "large@2026-06-03": "small@2026-05-22"}
_SMALL_OF |= {"large@2026-07-09": "small@2026-07-09"}
_CURE = "report this: the source of this template is the published one"


def templates_from_index(names: Sequence[str], index: Index) -> list[Fetched]:
    """Templates by name; each package is opened at most once, and only if it is needed.

    FetchError if a package cannot be fetched.
    """
    packages = _Packages(index)
    return [_store(name, packages.read(name), packages.source(name)) for name in names]


def templates_from_hub(names: Sequence[str]) -> list[Fetched]:
    """Templates by name; the hub has the last revision of each size class only.

    FetchError if the hub cannot be reached, or does not have one of these templates.
    """
    found = {name: kept for name in names if (kept := _in_cache(name))}
    for size in sorted({name.partition("@")[0] for name in names if name not in found}):
        data = hub_file(HUB[size], FILE)
        name = _name_of(data)
        if name is None or name not in names:
            missing = ", ".join(other for other in names if other not in found and other.startswith(size))
            has = name or f"a revision that is not known, sha256 {sha256(data)}"
            raise FetchError(f"{HUB[size]}/{FILE}: got {has}, expected {missing}; take --from index")
        found[name] = _store(name, data, HUB[size])
    missing = ", ".join(name for name in names if name not in found)
    if missing:
        raise FetchError(f"hub: got {', '.join(found)}, expected {missing} as well; take --from index")
    return [found[name] for name in names]


def templates_from_path(names: Sequence[str], path: Path) -> list[Fetched]:
    """The chat_template.jinja of a checkpoint, or that file itself, under the name of its revision.

    FixtureError if it is missing, unknown, or not among `names`.
    """
    file, data = read_users_file(path, FILE)
    name = _name_of(data)
    if name is None or name not in names:
        known = ", ".join(f"{other} {TEMPLATES[other].sha256[:8]}" for other in names)
        got = f"sha256 {sha256(data)}" + (f" ({name})" if name else "")
        raise FixtureError(file, got=got, expected=f"one of {known}", cure="take a published file, unchanged")
    return [_store(name, data, str(file))]


class _Packages:
    """The templates that the verified packages hold, and those that can be made from them."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._read: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """A template from the cache or from its package."""
        if name not in self._read:
            cached = cache.read_verified(cache.template_path(name), TEMPLATES[name])
            self._read |= self._unpack(name) if cached is None else {name: cached}
        return self._read[name]

    def source(self, name: str) -> str:
        """The source of a template, in words."""
        if name in _SMALL_OF:
            return f"made from {_SMALL_OF[name]} and {_IN_LLAMA_CPP[-1]}"
        return (LLAMA_CPP if name in _IN_LLAMA_CPP else TRL).file

    def _unpack(self, name: str) -> Mapping[str, bytes]:
        if name in _IN_LLAMA_CPP:
            return Sources.read(self._index.file(LLAMA_CPP)).templates
        if name in _SMALL_OF:
            small, large_then, small_then = map(self.read, (_SMALL_OF[name], "large@2026-04-10", "small@2026-04-10"))
            return {name: large_from_small(small, revision=name, large_then=large_then, small_then=small_then)}
        with zipfile.ZipFile(self._index.file(TRL)) as wheel:
            text = wheel.read(SMALL_MEMBERS[name])
        return {name: text + b"\n" if name == "small@2026-04-02" else text}


def _name_of(data: bytes) -> str | None:
    digest = sha256(data)
    return next((name for name, published in TEMPLATES.items() if published.sha256 == digest), None)


def _in_cache(name: str) -> Fetched | None:
    return in_cache(name, cache.template_path(name), TEMPLATES[name])


def _store(name: str, data: bytes, source: str) -> Fetched:
    return store(name, cache.template_path(name), TEMPLATES[name], data, source=source, cure=_CURE)
