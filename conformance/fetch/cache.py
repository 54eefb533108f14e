"""The places of fetched files, and a check that they are still what was published."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from conformance.fetch.published import Published
from gemma4_contract.files import sha256

NO_TOKENIZER = "the published tokenizer was not fetched: gemma4-conformance fetch tokenizer"


def root() -> Path:
    """The cache: the folder GEMMA4_CACHE, or one in the user's cache directory."""
    named = os.environ.get("GEMMA4_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("gemma4-conformance")


def tokenizer_path() -> Path:
    """The tokenizer.json of the -it models; it may be missing."""
    return root() / "tokenizer" / "tokenizer.json"


def template_path(name: str) -> Path:
    """The chat_template.jinja of a name such as `small@2026-07-09`; it may be missing."""
    return root() / "templates" / f"{name}.jinja"


def vectors_dir() -> Path:
    """The folder of llama.cpp's texts (`*.inp`) and their ids (`*.out`); it may be missing."""
    return root() / "llama.cpp"


def full_size_dir() -> Path:
    """The folder with one folder of weights for each model at full size that was materialised."""
    return root() / "full"


def downloads_dir() -> Path:
    """The folder of the downloaded packages."""
    return root() / "downloads"


def verified(path: Path, published: Published) -> Path | None:
    """The path, if its file is the published one; None otherwise."""
    return path if read_verified(path, published) is not None else None


def read_verified(path: Path, published: Published) -> bytes | None:
    """The content of a file, if it is the published one; None otherwise."""
    try:
        if path.stat().st_size != published.size:
            return None
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data if sha256(data) == published.sha256 else None
