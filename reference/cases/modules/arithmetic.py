"""Module cases: products, sums, exp and tanh."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reference.cases.draft import Draft, tap
from reference.cases.modules.module_draft import module_draft
from reference.inputs import full_precision, grid, values


def drafts(suffix: str) -> Iterator[Draft]:
    """The cases of products, sums, exp and tanh."""
    shape = (32, 512)
    yield module_draft(
        "linear/full-precision",
        "A product over 512 terms whose inputs use all bits of a float32: TF32 shows here.",
        {
            "x": full_precision(f"linear/full-precision#x{suffix}", shape),
            "weight": full_precision(f"linear/full-precision#weight{suffix}", shape),
        },
        axes="L F",
        profiles=("f64", "f32"),
    )
    yield module_draft(
        "linear/bf16-inputs",
        "A product over 512 terms with inputs that bfloat16 holds.",
        {
            "x": values(f"linear/bf16-inputs#x{suffix}", (16, 512)),
            "weight": values(f"linear/bf16-inputs#weight{suffix}", (16, 512), 512**-0.5),
        },
        axes="L F",
    )
    yield module_draft(
        "long-sum/positive",
        "Sums of 4,096 positive terms: low-precision accumulators stall.",
        {"x": np.abs(full_precision(f"long-sum/positive#x{suffix}", (4, 4096)))},
        axes="B",
    )
    yield module_draft(
        "exp-tanh/grid",
        "exp and tanh below zero: softmax takes exp of no positive number, and tanh is odd.",
        {"x": grid(-24.0, 0.0, 400)},
        taps=[tap("exp", "L"), tap("tanh", "L")],
    )
