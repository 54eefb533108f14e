"""Facts about a known mistake, as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemma4_contract import Fixtures
from reference.mutants.mutant import STOPS, Mutant

Facts = Mapping[str, Any]


def facts(mutant: Mutant, fixtures: Fixtures) -> Facts:
    """Facts about a mistake; `cases` are those that exist to catch it."""
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
    """One mistake as text."""
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
