"""Versions of the libraries that goldens depend on."""

from __future__ import annotations

import functools
import importlib.metadata


@functools.cache
def library_versions(*names: str) -> dict[str, str]:
    """The versions of the named libraries."""
    return {name: importlib.metadata.version(name) for name in names}
