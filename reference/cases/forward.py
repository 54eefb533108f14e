"""Forward cases: every model at lengths around its window, every plan against one golden; every layout of one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemma4_contract import Plan
from gemma4_contract.tensors import Array
from reference import inputs
from reference.cases.draft import Draft
from reference.layouts import LAYOUTS, Layout
from reference.models import MODELS, Model
from reference.taps import model_taps

GOLDEN_PLAN = "no-cache"


def golden_id(model: Model) -> str:
    """The case that stores a model's forward golden."""
    return f"forward/{model.id}/uniform-l{golden_length(model)}/{GOLDEN_PLAN}"


def golden_length(model: Model) -> int:
    """2w + 3: two windows and a few tokens."""
    return 2 * model.config.sliding_window + 3


def golden_ids(model: Model, seed: int) -> Array:
    """Token ids of a model's forward golden, [1, L]."""
    name = f"{golden_id(model)}#ids" + (f"#seed{seed}" if seed else "")
    return inputs.token_ids(name, golden_length(model), model.config.vocab_size)


def drafts(seed: int = 0) -> Iterator[Draft]:
    """The forward cases; any seed but 0 draws other ids."""
    for model in MODELS.values():
        ids = golden_ids(model, seed)
        for length, plans in _lengths(model).items():
            for name, (purpose, plan) in plans.items():
                yield _draft(model, ids, length, name, purpose, plan)
    for layout in LAYOUTS.values():
        yield _layout_draft(layout, seed)


_Plans = dict[str, tuple[str, Plan]]


def _lengths(model: Model) -> dict[int, _Plans]:
    window = model.config.sliding_window
    longest = golden_length(model)
    at_longest = {
        **_basic(longest),
        "chunks-5": _chunks(5, longest, "smaller than the window"),
        "padded": (
            "A ragged batch, left-padded, prefilled and then decoded: every row equals the unpadded run.",
            Plan(steps=[longest - 4, 1, 1, 1, 1], left_pad=[0, 3, 12]),
        ),
    }
    if not model.nested:  # traps are asked only at the longest length
        return {longest: at_longest}
    return {
        1: _basic(1),
        2: _basic(2),
        window - 1: {**_basic(window - 1), "chunks-3": _chunks(3, window - 1, "smaller than the window")},
        window: {**_basic(window), "chunks-3": _chunks(3, window, "smaller than the window")},
        window + 1: {**_basic(window + 1), "chunks-5": _chunks(5, window + 1, "smaller than the window")},
        longest: {
            **at_longest,
            "chunks-11": _chunks(11, longest, "larger than the window"),
            "padded-mixed": (
                "A ragged batch, left-padded, fed in a chunk, a single token and a chunk again.",
                Plan(steps=[window, 1, window + 2], left_pad=[0, 3, 12]),
            ),
            "padded-no-cache": (
                "A ragged batch, left-padded, in one call without a cache.",
                Plan(steps=None, left_pad=[0, 3, 12]),
            ),
        },
    }


def _basic(length: int) -> _Plans:
    plans: _Plans = {
        GOLDEN_PLAN: (f"{length} tokens in one call without a cache.", Plan(steps=None)),
        "one-shot": (f"{length} tokens in one call with a cache.", Plan(steps=[length])),
    }
    if length > 1:
        plans["tokens"] = (f"{length} tokens fed one by one.", Plan(steps=[1] * length))
    return plans


def _chunks(size: int, length: int, relation: str) -> tuple[str, Plan]:
    steps = [size] * (length // size) + ([length % size] if length % size else [])
    return f"{length} tokens in chunks of {size}, {relation} and not dividing the length.", Plan(steps=steps)


def _draft(model: Model, ids: Array, length: int, name: str, purpose: str, plan: Plan) -> Draft:
    case_id = f"forward/{model.id}/uniform-l{length}/{name}"
    owns = case_id == golden_id(model)
    return Draft(
        id=case_id,
        kind="forward",
        level="L2" if name == GOLDEN_PLAN else "L3",
        topic="logits" if plan.steps is None else "decode",
        model=model.id,
        purpose=purpose,
        taps=model_taps(model.config),
        inputs=padded_inputs(ids[:, :length], plan.left_pad),
        plan=plan,
        plan_name=name,
        pointer=None if owns else (golden_id(model), length),
    )


def _layout_draft(layout: Layout, seed: int) -> Draft:
    """The model's own golden asked of another layout of its weights."""
    model = layout.weights_of
    plan = Plan(steps=None)
    return Draft(
        id=f"forward/{layout.id}/uniform-l{golden_length(model)}/{GOLDEN_PLAN}",
        kind="forward",
        level="L2",
        topic="loading",
        model=layout.id,
        purpose=layout.purpose,
        taps=model_taps(layout.config),
        inputs=padded_inputs(golden_ids(model, seed), plan.left_pad),
        plan=plan,
        plan_name=GOLDEN_PLAN,
        pointer=(golden_id(model), golden_length(model)),
    )


def padded_inputs(ids: Array, left_pad: list[int] | None) -> dict[str, Array]:
    """ids, positions and, for padded batches, valid: row b holds the first L - left_pad[b] ids after its pads."""
    length = ids.shape[1]
    positions = np.arange(length, dtype=np.int32)
    if left_pad is None:
        return {"ids": ids, "positions": positions[None]}
    rows = [(np.zeros(pad, np.int32), length - pad) for pad in left_pad]
    return {
        "ids": np.stack([np.concatenate([pads, ids[0, :real]]) for pads, real in rows]),
        "positions": np.stack([np.concatenate([pads, positions[:real]]) for pads, real in rows]),
        "valid": np.stack([np.concatenate([pads, np.ones(real, np.int32)]) for pads, real in rows]).astype(np.uint8),
    }
