"""A few mutants and cases for tests of the kill matrix, with rows and results that no judge made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html.parser import HTMLParser

from conformance.selftest.kill_matrix import Kill, Result, Row
from reference.mutants import MUTANTS

ROPE = MUTANTS["prop-rope-denominator"]
SCALE = MUTANTS["embed-scale-missing"]
GELU = MUTANTS["gelu-erf"]
EMBEDDING = "module/embedding/width-96"
AT_1 = "module/rope/proportional-at-1"
SLIDING, FULL = "layer/e2b-mini/sliding-own", "layer/e2b-mini/full-own"
L1, L2 = "forward/e2b-mini/uniform-l1/no-cache", "forward/e2b-mini/uniform-l2/no-cache"
FEW = (EMBEDDING, AT_1, SLIDING, FULL, L1, L2)


def made(mutant: str, *kills: str, profile: str = "f32", expected: bool = True) -> Row:
    """A row without a judge."""
    return Row(mutant=mutant, profile=profile, kills=tuple(Kill(case=c, tap="y", expected=expected) for c in kills))


_CATALOGUE = {
    "caught": ROPE,
    "elsewhere": ROPE,
    "lost": ROPE,
    "explained": dataclasses.replace(ROPE, survives_in={"f32": "nobody can see it"}),
    "equal": dataclasses.replace(ROPE, equivalent_in={"f32": "it changes nothing"}),
    "not equal": dataclasses.replace(ROPE, equivalent_in={"f32": "it is said to change nothing"}),
    "not lost": dataclasses.replace(ROPE, survives_in={"f32": "it is said to be seen by nobody"}),
    "equal elsewhere": dataclasses.replace(ROPE, equivalent_in={"f64": "it changes nothing there"}),
}
CATALOGUE = {name: dataclasses.replace(mutant, id=name) for name, mutant in _CATALOGUE.items()}
STORED = (
    Result(mutant=ROPE.id, profile="f32", located=False, witness=(AT_1, "y")),
    Result(mutant=SCALE.id, profile="f32", located=False, witness=None),
    Result(mutant=SCALE.id, profile="f64", located=True, witness=(L1, "model.embed_tokens")),
)


class Page(HTMLParser):
    """Tags with their attributes, text apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[Mapping[str, str | None]] = []
        self.heads: dict[str, Mapping[str, str | None]] = {}
        self._head: Mapping[str, str | None] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "td":
            self.cells.append(dict(attributes))
        if tag == "th":
            self._head = dict(attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "th":
            self.heads[data] = self._head
