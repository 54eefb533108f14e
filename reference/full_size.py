"""The five members at full size, with weights by rule, and their questions: one text past the window each.

Slices of them are for machines that cannot hold them: real widths, heads and experts, few layers and words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.family import FAMILY, FULL, SLIDING
from reference.models import Model

FULL_SIZE: Mapping[str, Model] = {
    f"{name}-full": Model(
        id=f"{name}-full",
        member=member,
        purpose="The published configuration, nothing overridden; the weights are formulas and ship nowhere.",
        overrides={},
        nested=True,
    )
    for name, member in FAMILY.items()
}
_FEW_WORDS = {"vocab_size": 4096, "vocab_size_per_layer_input": 4096}
_WITH_PLE = {  # the last two layers share
    **_FEW_WORDS,
    "layer_types": [SLIDING, SLIDING, SLIDING, FULL, SLIDING, FULL],
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
}
_WITHOUT = {**_FEW_WORDS, "layer_types": [SLIDING, FULL], "num_hidden_layers": 2}
_WINDOW = "e2b-window-slice"
SLICES: Mapping[str, Model] = {
    f"{name}-slice": Model(
        id=f"{name}-slice",
        member=FAMILY[name],
        purpose="The published widths, heads and experts in a few layers, over 4,096 words.",
        overrides=overrides,
        nested=True,
    )
    for name, overrides in (
        ("e2b", _WITH_PLE),
        ("e4b", _WITH_PLE),
        ("12b", _WITHOUT),
        ("26b-a4b", _WITHOUT),
        ("31b", _WITHOUT),
    )
} | {
    _WINDOW: Model(
        id=_WINDOW,
        member=FAMILY["e2b"],
        purpose="E2B's widths in a sliding and a full layer, over 4,096 words and more tokens than the window holds.",
        overrides=_WITHOUT | {"num_kv_shared_layers": 0},
        nested=True,
    )
}


class NamedConfig(Protocol):
    """The id and configuration of a model, which decide what is asked of it."""

    @property
    def id(self) -> str: ...

    @property
    def config(self) -> TextConfig: ...


DECODE_STEPS = 4
_END_OF_64 = 63
_PAST_THE_WINDOW = 77
_SLICE_PAST_THE_WINDOW = 9
_SLICE_LENGTH = 20


def models() -> dict[str, Model]:
    """All of them, by their ids."""
    return {**FULL_SIZE, **SLICES}


def prefill_length(model: NamedConfig) -> int:
    """w + 77; for slices 20, and w + 9 for the slice that tests the window."""
    if model.id == _WINDOW:
        return model.config.sliding_window + _SLICE_PAST_THE_WINDOW
    return _SLICE_LENGTH if model.id in SLICES else model.config.sliding_window + _PAST_THE_WINDOW


def stored_rows(model: NamedConfig) -> list[int]:
    """The positions whose rows are stored: the first, the end of 64 tokens, the window's edge, the last, decode steps.

    All positions for slices within the window.
    """
    window, last = model.config.sliding_window, prefill_length(model) - 1
    if last < window:
        return list(range(last + DECODE_STEPS + 1))
    return sorted({0, 1, _END_OF_64, *range(window - 2, window + 3), *range(last, last + DECODE_STEPS + 1)})


def token_ids(model: NamedConfig, fixtures: Fixtures) -> Array:
    """Token ids [1, L] I32: real prompts one after the other, the last ids of the vocabulary at stored rows."""
    length, vocabulary = prefill_length(model) + DECODE_STEPS, model.config.vocab_size
    ids = np.array(_real_ids(fixtures, length), np.int32) % vocabulary  # as they are, but for models with fewer
    for back, row in enumerate(_rows_of_last_words(model)):
        ids[row] = vocabulary - 1 - back  # in E2B's table of per-layer embeddings their rows begin after 2^31
    return ids[None]


def _rows_of_last_words(model: NamedConfig) -> tuple[int, int, int]:
    """Three rows that are stored: one before the window is full, one after, and one that is decoded."""
    window, last = model.config.sliding_window, prefill_length(model) - 1
    first, second = (2, 6) if last < window else (_END_OF_64, window + 1)
    return first, second, last + 2


def _real_ids(fixtures: Fixtures, count: int) -> list[int]:
    """The ids of the first prompts of `fixtures/prompts/chat`, one after the other."""
    found: list[int] = []
    for prompt_id in fixtures.prompts.conversation_ids:
        renders = fixtures.prompts.conversation(prompt_id).renders
        found += next((render.prompt.ids for render in renders if render.prompt), [])
    if len(found) < count:
        raise ValueError(f"the prompts of the fixtures hold {len(found)} ids, expected {count}")
    return found[:count]
