"""The catalogue of known mistakes as Markdown: docs/mistakes/, with a page for each area and an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from conformance.selftest.catalogue import Facts, facts
from gemma4_contract import Fixtures
from reference.mutants import MUTANTS

INDEX = "index.md"
COMMAND = "gemma4-conformance bugs --markdown docs/mistakes"
_SHOWN_CASES = 3
"""The largest number of cases that a page names for a mistake."""


def pages(fixtures: Fixtures) -> Mapping[str, str]:
    """The Markdown of every page by its file name: `index.md`, then a page for each area such as `kv-sharing.md`."""
    areas = {
        area: [facts(mutant, fixtures) for mutant in mutants]
        for area, mutants in groupby(MUTANTS.values(), key=lambda mutant: mutant.area)
    }
    return {INDEX: _index(areas)} | {page_of(area): _page(area, entries) for area, entries in areas.items()}


def page_of(area: str) -> str:
    """The file name of an area's page."""
    return f"{area.lower().replace(' ', '-')}.md"


def _index(areas: Mapping[str, Iterable[Facts]]) -> str:
    lines = [
        "# Known mistakes in ports of Gemma 4",
        "",
        f"{len(MUTANTS)} mistakes that ports make, each put into the reference as a small change of one function",
        "(`reference/mutants/`). They grade the suite (`gemma4-conformance self-test`), and they name what is wrong",
        "with a port (`gemma4-conformance diagnose`). Each page gives the symptom, the cure, the cases that catch the",
        "mistake, and public reports where some are known. `gemma4-conformance bugs show ID` prints the same.",
        "",
        "*First seen* is the tap where a run first departs from the reference; [FORWARD.md](../FORWARD.md) says what a",
        f"tap is computed from. `{COMMAND}` writes these pages.",
    ]
    for area, entries in areas.items():
        lines += ["", f"## {area}", "", "| id | what the wrong code does | first seen |", "| --- | --- | --- |"]
        for entry in entries:
            link = f"[{entry['id']}]({page_of(area)}#{entry['id']})"
            lines.append(f"| {link} | {_cell(entry['does'])} | {_cell(entry['first_seen'])} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _page(area: str, entries: Iterable[Facts]) -> str:
    lines = [f"# Known mistakes: {area}", "", f"[All areas]({INDEX}). `{COMMAND}` writes this page."]
    for entry in entries:
        lines += ["", *_entry(entry)]
    return "\n".join(lines) + "\n"


def _entry(facts: Facts) -> list[str]:
    lines = [
        f"## {facts['id']}",
        "",
        facts["does"],
        "",
        f"* Symptom: {facts['symptom']}",
        f"* First seen: {facts['first_seen']}",
        f"* Cure: {facts['cure']}",
    ]
    if facts["links"]:
        lines.append(f"* Reported: {', '.join(f'<{url}>' for url in facts['links'])}")
    for profile, proof in facts["equivalent_in"].items():
        lines.append(f"* Changes nothing in {profile}: {proof}")
    for profile, reason in facts["survives_in"].items():
        lines.append(f"* Not caught in {profile}: {reason}")
    if facts["cases"]:
        shown = ", ".join(f"`{case}`" for case in facts["cases"][:_SHOWN_CASES])
        more = len(facts["cases"]) - _SHOWN_CASES
        lines.append(f"* Hunted by {shown}" + (f" and {more} more" if more > 0 else ""))
    return lines
