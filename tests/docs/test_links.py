"""Every link of every document leads to a file, and to a heading where it names one; paths in texts are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.markdown import DOCUMENTS, anchors, links, target_of

PATH = re.compile(r"`((?:fixtures|gemma4_contract|reference|mlx_impl|conformance|ports|tests|docs|\.ci)/[\w./-]*)`")
"""A file or folder of the project that a text names."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for link in links(document.read_text(encoding="utf-8")):
        target, anchor = target_of(document, link)
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_are_there(document: Path) -> None:
    named = set(PATH.findall(document.read_text(encoding="utf-8")))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_a_lost_link_would_be_seen() -> None:
    assert PATH.findall("`docs/x.md`, `conformance/adapters/<name>.py` and `a/b`") == ["docs/x.md"]
    assert list(links("[a](b.md#c) ![d](e.svg) [f](https://g)")) == ["b.md#c", "e.svg"]
    assert anchors("# Weights by rule: `int8-splitmix64-v1`\n\n```\n# no heading\n```\n## A port, in C++") == {
        "weights-by-rule-int8-splitmix64-v1",
        "a-port-in-c",
    }


def test_the_map_of_the_docs_is_complete() -> None:
    index = ROOT / "docs" / "index.md"
    shown = {target_of(index, link)[0] for link in links(index.read_text(encoding="utf-8"))}
    pages = {path for path in DOCUMENTS if path != index and path.parent.name != "mistakes"}
    assert pages - shown == set()
