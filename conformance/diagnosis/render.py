"""A diagnosis as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conformance.diagnosis.causes import Cause
from conformance.diagnosis.diagnose import Diagnosis
from conformance.diagnosis.wrong_nodes import in_words
from conformance.reporting.jsonl import CaseLine
from conformance.reporting.reproduce import rerun_command
from gemma4_contract import Fixtures
from gemma4_contract.node import below_layer
from reference.mutants import MUTANTS

_ELSEWHERE = "looks like: known mistakes are not compared at full size; `--levels L0-L4 --report DIR` compares"


def as_text(fixtures: Fixtures, diagnosis: Diagnosis, impl: str, profile: str) -> str:
    """Several lines: the first divergence, its description, the nearest mistake, and the command that reproduces it."""
    verdict, naming = diagnosis.shown_by, diagnosis.naming
    first = verdict.first_divergence
    lines = [f"{diagnosis.failing} of {diagnosis.judged} cases fail"]
    if first is not None:
        lines += [f"first divergence: {first.name}", f"  in {verdict.case.id}", f"  {first.fault}"]
    else:
        lines += [f"no answer to {verdict.case.id}", f"  {verdict.note}"]
    lines += [f"  {word}" for word in diagnosis.words]
    lines += in_words(diagnosis.wrong_nodes)
    if naming is None:
        lines.append(_ELSEWHERE)
    elif naming.mutant is not None:
        mutant = naming.mutant
        lines += [
            f"looks like: {mutant.id} ({mutant.area})",
            f"  {mutant.does}",
            f"  cure: {mutant.cure}",
            *(f"  see {url}" for url in mutant.urls),
        ]
    elif naming.stops_like:
        lines.append("it stops, and gives no numbers to know a mistake by; known ones that stop in just these cases:")
        lines += [f"  {MUTANTS[mutant_id].id}: {MUTANTS[mutant_id].cure}" for mutant_id in naming.stops_like]
    elif naming.rivals:
        lines.append(f"looks like one of: {', '.join(naming.rivals)}")
        lines.append("  the cases that were put do not tell them apart: put more (`--cases '*'`)")
    elif any(cause.mutants for cause in diagnosis.causes):
        lines += _causes(diagnosis.causes)
    else:
        lines.append("looks like: unknown (no known mistake explains what was seen)")
    lines.append(f"reproduce: {_reproduce(fixtures, diagnosis, impl, profile)}")
    return "\n".join(lines)


def _causes(causes: Sequence[Cause]) -> list[str]:
    """What each group of wrong nodes looks like, where no single mistake explains the whole run."""
    count = "1 cause, told" if len(causes) == 1 else f"{len(causes)} causes, told apart"
    lines = [f"{count} by the nodes that are wrong by themselves:"]
    for cause in causes:
        nodes, ids = ", ".join(map(below_layer, cause.nodes)), [mutant.id for mutant in cause.mutants]
        looks = "unknown" if not ids else ids[0] if len(ids) == 1 else f"one of {', '.join(ids)}"
        lines.append(f"  {nodes}: looks like {looks}")
        if len(ids) == 1:
            (mutant,) = cause.mutants
            lines += [f"    {mutant.does}", f"    cure: {mutant.cure}", *(f"    see {url}" for url in mutant.urls)]
    return lines


def _reproduce(fixtures: Fixtures, diagnosis: Diagnosis, impl: str, profile: str) -> str:
    return rerun_command(fixtures, impl, profile, diagnosis.smallest.case, diagnosis.smallest.tokens)


def prompts_as_text(fixtures: Fixtures, wrong: Sequence[CaseLine], impl: str, profile: str) -> str:
    """The number of wrong prompts, and the first of them."""
    first = wrong[0]
    lines = [f"{len(wrong)} questions on prompts fail", f"first: {first.case}: {first.note}"]
    return "\n".join([*lines, f"reproduce: {rerun_command(fixtures, impl, profile, first.case)}"])


def everything_as_text(
    fixtures: Fixtures, diagnosis: Diagnosis | None, wrong_prompts: Sequence[CaseLine], impl: str, profile: str
) -> str:
    """The diagnosis of tensors and prompts; "" if nothing failed."""
    parts = [as_text(fixtures, diagnosis, impl, profile)] if diagnosis else []
    parts += [prompts_as_text(fixtures, wrong_prompts, impl, profile)] if wrong_prompts else []
    return "\n\n".join(parts)


def as_json(fixtures: Fixtures, diagnosis: Diagnosis, impl: str, profile: str) -> dict[str, Any]:
    """A diagnosis as JSON."""
    first, naming = diagnosis.shown_by.first_divergence, diagnosis.naming
    mutant = naming.mutant if naming else None
    return {
        "failing": diagnosis.failing,
        "judged": diagnosis.judged,
        "case": diagnosis.shown_by.case.id,
        "first_divergence": first.name if first else None,
        "fault": first.fault if first else diagnosis.shown_by.note,
        "words": list(diagnosis.words),
        "wrong_nodes": [
            {"node": node.name, "layers": sorted(node.layers), "cases": sorted(node.cases)}
            for node in diagnosis.wrong_nodes
        ],
        "causes": [
            {"nodes": list(cause.nodes), "mistakes": [mutant.id for mutant in cause.mutants]}
            for cause in diagnosis.causes
        ],
        "mistake": mutant.id if mutant else None,
        "cure": mutant.cure if mutant else None,
        "links": mutant.urls if mutant else [],
        "stops_like": list(naming.stops_like) if naming else [],
        "cannot_be_told_apart": list(naming.rivals) if naming else [],
        "reproduce": _reproduce(fixtures, diagnosis, impl, profile),
    }
