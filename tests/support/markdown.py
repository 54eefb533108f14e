"""Documents as tests read them: code blocks, headings, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "mlx_impl/*.md", "ports/*/*.md", "conformance/**/*.md", "fixtures/*.md")
    for path in ROOT.glob(pattern)
)
"""Every document of the project."""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def read(name: str) -> str:
    """The text of a document by its path in the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def block(text: str, name: str) -> str:
    """The code block under the comment `<!-- name -->`."""
    (found,) = re.findall(rf"^<!-- {re.escape(name)} -->\n```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(found)


def code(text: str, language: str = "") -> list[str]:
    """The code blocks of a language; those of none are commands and what they print."""
    return [body for named, body in _FENCE.findall(text) if named == language]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures that lie in the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text)):
        if not target.startswith(("http://", "https://")):
            yield target


def target_of(document: Path, link: str) -> tuple[Path, str]:
    """The file that a link of a document leads to, and the anchor in it."""
    path, _, anchor = link.partition("#")
    return (document.parent / path).resolve() if path else document, anchor
