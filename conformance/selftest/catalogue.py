"""The catalogue of known mistakes as people read it: in the terminal, and as docs/KNOWN_BUGS.md."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from gemma4_contract import Fixtures
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS, Mutant

Facts = Mapping[str, Any]

_SHOWN_CASES = 3
"""How many cases are told of a mistake that many hunt."""


def facts(mutant: Mutant, fixtures: Fixtures) -> Facts:
    """What there is to say of a mistake; `cases` are those that exist to catch it."""
    return {
        "id": mutant.id,
        "area": mutant.area,
        "does": mutant.does,
        "symptom": mutant.symptom,
        "first_seen": _first_seen(mutant),
        "cure": mutant.cure,
        "links": mutant.urls,
        "equivalent_in": dict(mutant.equivalent_in),
        "survives_in": dict(mutant.survives_in),
        "cases": [case.id for case in fixtures.cases() if mutant.id in case.hunts],
    }


def _first_seen(mutant: Mutant) -> str:
    if mutant.first_tap == STOPS:
        return "the port stops"
    in_layers = any(not tap.startswith(("model.", "logits")) for tap in mutant.first_tap.split(" or "))
    return f"{mutant.first_tap}, {mutant.layers}" if in_layers else mutant.first_tap


def as_text(facts: Facts) -> str:
    """One mistake for the terminal."""
    lines = [
        f"{facts['id']} ({facts['area']})",
        f"  {facts['does']}",
        f"symptom: {facts['symptom']}",
        f"first seen: {facts['first_seen']}",
        f"cure: {facts['cure']}",
        *(f"see {url}" for url in facts["links"]),
        *(f"changes nothing in {profile}: {proof}" for profile, proof in facts["equivalent_in"].items()),
        *(f"not caught in {profile}: {reason}" for profile, reason in facts["survives_in"].items()),
    ]
    if facts["cases"]:
        lines.append(f"try: pytest conformance/ --cases '{facts['cases'][0]}'")
        lines.append(f"cases that hunt it: {', '.join(facts['cases'])}")
    return "\n".join(lines)


def as_markdown(fixtures: Fixtures) -> str:
    """The whole catalogue as docs/KNOWN_BUGS.md."""
    lines = [
        "# Known mistakes in ports of Gemma 4",
        "",
        f"{len(MUTANTS)} mistakes that ports make, each put into the reference as a small change of one function",
        "(`reference/mutants/`). They grade the suite (`gemma4-conformance self-test`) and name what is wrong with a",
        "port (`gemma4-conformance diagnose`). Where public reports or cures are known, they are linked.",
        "This file is written by `gemma4-conformance bugs --markdown`.",
    ]
    for area, mutants in groupby(MUTANTS.values(), key=lambda mutant: mutant.area):
        lines += ["", f"## {area}"]
        for mutant in mutants:
            lines += ["", *_entry(facts(mutant, fixtures))]
    return "\n".join(lines) + "\n"


def _entry(facts: Facts) -> list[str]:
    lines = [
        f"### {facts['id']}",
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
