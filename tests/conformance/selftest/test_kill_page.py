"""The kill matrix as a page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import pytest

from conformance.selftest import kill_page
from conformance.selftest.kill_matrix import Row
from reference.mutants.mutant import Mutant
from tests.support.installed import FIXTURES
from tests.support.kill_matrices import AT_1, CATALOGUE, ROPE, SLIDING, Page, made


def page_of(monkeypatch: pytest.MonkeyPatch, catalogue: Mapping[str, Mutant], *rows: Row) -> tuple[str, Page]:
    monkeypatch.setattr(kill_page, "MUTANTS", catalogue)
    html = kill_page.render(rows, FIXTURES)
    return html, Page(html)


def test_the_page_shades_what_catches_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    ropes = [case for case in FIXTURES.case_ids if case.startswith("module/rope/")]
    rows = (made("caught", *ropes), made("elsewhere", ropes[0], SLIDING), made("lost"), made("equal"))
    html, page = page_of(monkeypatch, CATALOGUE, *rows)
    assert page.open == []
    columns = list(dict.fromkeys(kill_page.group(case) for case in FIXTURES.cases()))
    first, second, third, fourth = (page.cells[i * len(columns) : (i + 1) * len(columns)] for i in range(4))
    rope, layer = columns.index("module/rope"), columns.index("layer/e2b-mini")
    assert first[rope] == {"class": "s4", "title": f"module/rope: {len(ropes)} of {len(ropes)}"}
    assert second[rope] == {"class": "s1", "title": f"module/rope: 1 of {len(ropes)}"}
    assert second[layer]["class"] == "s1"
    assert [cell for cell in (*third, *fourth) if cell] == []
    assert "<h2>f32</h2>" in html
    assert "2 of 3 mistakes caught\n(66.7 %)" in html


def test_every_profile_has_a_table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    html, page = page_of(monkeypatch, CATALOGUE, made("caught", AT_1), made("lost"), made("caught", profile="f64"))
    assert re.findall("<h2>(.*)</h2>", html) == ["f32", "f64"]
    assert len(page.cells) == 3 * len({kill_page.group(case) for case in FIXTURES.cases()})


def test_survivors_and_equivalents_stand_out_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    _, page = page_of(monkeypatch, CATALOGUE, made("caught", "a"), made("lost"), made("equal"))
    classes = {name: page.heads[name].get("class") for name in ("caught", "lost", "equal")}
    assert classes == {"caught": None, "lost": "survivor", "equal": "equivalent"}


def test_what_a_mistake_does_is_text_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    does = 'Takes "a" for <b> & both.'
    _, page = page_of(monkeypatch, {"caught": dataclasses.replace(ROPE, id="caught", does=does)}, made("caught", AT_1))
    assert page.heads["caught"]["title"] == does


def test_the_page_needs_nothing_else() -> None:
    rows = [made(ROPE.id, AT_1)]
    html = kill_page.render(rows, FIXTURES)
    assert "http" not in html
    assert "src=" not in html
