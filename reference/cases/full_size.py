"""Cases of a model at full size: one text whose golden is partly stored, and questions that point into it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from gemma4_contract import Plan
from gemma4_contract.tensors import Array
from reference.cases.draft import Draft
from reference.cases.forward import GOLDEN_PLAN, padded_inputs
from reference.config import TextConfig
from reference.full_size import DECODE_STEPS, NamedConfig, prefill_length
from reference.streaming.stored_taps import stored_counts
from reference.taps import Tap, model_taps

_WITHIN_THE_WINDOW = 64


def drafts(model: NamedConfig, ids: Array) -> Iterator[Draft]:
    """The case that stores the golden of the text `ids` [1, L], then those that point into it."""
    length = ids.shape[1]
    taps = kept_taps(model.config)
    decode = Plan(steps=[prefill_length(model)] + [1] * DECODE_STEPS)
    owner = f"forward/{model.id}/text-l{length}/{GOLDEN_PLAN}"
    for count, name, plan, purpose in (
        (length, GOLDEN_PLAN, Plan(steps=None), "all of them in one call without a cache."),
        (length, "decode", decode, f"the last {DECODE_STEPS} of them one by one."),
        (_WITHIN_THE_WINDOW, GOLDEN_PLAN, Plan(steps=None), "within the window."),
        (1, GOLDEN_PLAN, Plan(steps=None), "<bos> alone."),
    ):
        case_id = f"forward/{model.id}/text-l{count}/{name}"
        if count <= length:
            yield Draft(
                id=case_id,
                kind="forward",
                level="L5",
                topic="logits" if plan.steps is None else "decode",
                model=model.id,
                purpose=f"At full width, {count} tokens of real prompts: {purpose}",
                taps=taps,
                inputs=padded_inputs(ids[:, :count], None),
                plan=plan,
                plan_name=name,
                pointer=None if case_id == owner else (owner, count),
            )


def kept_taps(config: TextConfig) -> list[Tap]:
    """The stored taps; their parents are the nearest stored ancestors."""
    every = {tap.name: tap for tap in model_taps(config)}
    kept, order = stored_counts(config), list(every)
    return [
        replace(every[name], parents=tuple(sorted(_ancestors(name, every, kept), key=order.index))) for name in kept
    ]


def _ancestors(name: str, every: Mapping[str, Tap], kept: Collection[str]) -> set[str]:
    """The nearest stored ancestors of a tap."""
    found: set[str] = set()
    for parent in every[name].parents:
        found |= {parent} if parent in kept else _ancestors(parent, every, kept)
    return found
