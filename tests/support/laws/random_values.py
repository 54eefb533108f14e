"""Random values for single modules: from a name and a seed that Hypothesis draws."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gemma4_contract.tensors import Array
from reference import inputs

sizes = st.integers
seeds = st.integers(0, 999)


def normal(name: str, seed: int, *shape: int) -> Array:
    """Float32 values of standard deviation near 1, exact in bfloat16."""
    return inputs.values(f"laws#{name}#{seed}", shape).astype(np.float32)
