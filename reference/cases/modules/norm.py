"""Module cases: RMSNorm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gemma4_contract.tensors import Array
from reference import weights
from reference.cases.draft import Draft
from reference.cases.modules.module_draft import EPS, WIDTH, module_draft
from reference.inputs import values


def drafts(suffix: str) -> Iterator[Draft]:
    """The cases of RMSNorm."""

    def x(name: str, width: int, scale: float = 1.0) -> Array:
        return values(f"rms-norm/{name}#x{suffix}", (6, width), scale)

    weight = weights.norm(f"rms-norm/weight{suffix}", WIDTH, 1.0)
    yield module_draft(
        "rms-norm/weighted",
        "RMSNorm with a weight far from 0 and 1.",
        {"x": x("weighted", WIDTH), "weight": weight},
        params={"eps": EPS},
    )
    yield module_draft(
        "rms-norm/unweighted",
        "RMSNorm without a weight, as values and the router's input get it.",
        {"x": x("unweighted", WIDTH)},
        params={"eps": EPS},
    )
    yield module_draft(
        "rms-norm/near-eps",
        "Inputs whose mean square is about eps: eps belongs inside the root.",
        {"x": x("near-eps", WIDTH, 1e-3), "weight": weight},
        params={"eps": EPS},
    )
    yield module_draft(
        "rms-norm/eps-1e-5",
        "An epsilon that is not 1e-6, with inputs small enough to feel it.",
        {"x": x("eps-1e-5", WIDTH, 1e-3), "weight": weight},
        params={"eps": 1e-5},
    )
    yield module_draft(
        "rms-norm/large",
        "Inputs of RMS 1,000, whose squares overflow float16.",
        {"x": x("large", WIDTH, 1e3), "weight": weight},
        params={"eps": EPS},
    )
    yield module_draft(
        "rms-norm/zeros",
        "A row of zeros stays zero.",
        {"x": np.zeros((2, WIDTH)), "weight": weight},
        params={"eps": EPS},
    )
    yield module_draft(
        "rms-norm/width-5376",
        "The widest hidden size of the family (31B).",
        {"x": x("width-5376", 5376)[:1], "weight": weights.norm(f"rms-norm/width-5376{suffix}", 5376, 1.0)},
        params={"eps": EPS},
    )
