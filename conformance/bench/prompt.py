"""The prompts of the benchmarks, the same in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mlx.core as mx


def prompt(length: int) -> mx.array:
    """Ids [1, L] that any vocabulary of the family has."""
    import mlx.core as mx

    return mx.array(np.random.default_rng(length).integers(4, 250, (1, length)))
