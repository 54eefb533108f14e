"""The checkpoint of a benchmark: the user's, or a family member at full size with weights by rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from conformance.fetch import cache
from reference.export.materialize import materialize
from reference.full_size import FULL_SIZE
from reference.models import MODELS, Model

# Flat: from a nested configuration mlx-lm takes no vocabulary but the published one.
SIZES: Mapping[str, Model] = {
    model.id: replace(model, nested=False) for model in (*FULL_SIZE.values(), MODELS["e2b-mini"])
}
"""Models that can be made."""


def by_rule(model: str, bits: int | None) -> Path:
    """The folder of one of SIZES, plain in bfloat16 or quantised to `bits`; made once and kept in the cache."""
    folder = cache.root() / "bench" / (f"{model}-{bits}bit" if bits else model)
    materialize(SIZES[model], folder, shards=1, bits=bits, progress=lambda *_: None)
    return folder
