"""Floors of a model at full size: what the oracle errs by in the profile's arithmetic, streamed.

Only NumPy can hold these models here, so its orders of summation and its fused chains are the variants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance.compare import measure
from conformance.floors import rounded_up
from conformance.routing import comparable_rows
from reference.export.full_size import kept_by_rule
from reference.format import Floors
from reference.format.documents import read_model
from reference.format.full_size import FullSize
from reference.format.layout import spread_mask
from reference.format.models import Profile, Variant
from reference.models import Model
from reference.oracle.arithmetic import PROFILES

VARIANTS: Mapping[str, dict[str, Any]] = {
    "oracle blas": {},
    "oracle split": {"order": "split"},
    "oracle fused": {"fused": True},
}
Progress = Callable[[int, int, str], None]


def measure_full_size(model: Model, full: FullSize, profile: Profile, progress: Progress) -> Floors:
    """The table of the profile, what stands in it of other models kept."""
    case = next(case for case in full.cases() if case.model == model.id and case.taps)
    ids, golden = full.inputs(case)["ids"], full.golden(case)
    specs = {tap.name: tap for tap in case.taps}
    picks = specs["logits"].picks
    assert picks is not None
    vocabulary = picks.indices(specs["logits"].axes)[-1]
    worst = {name: [0.0, 0.0] for name in golden}
    for number, (variant, options) in enumerate(VARIANTS.items()):
        arithmetic = dataclasses.replace(PROFILES[profile], **options)

        def told(done: int, total: int, what: str, number: int = number, variant: str = variant) -> None:
            progress(number * total + done, len(VARIANTS) * total, f"{variant}: {what}")

        kept = kept_by_rule(model, ids, arithmetic, told, vocabulary=vocabulary)
        answer = {name: one.values for name, one in kept.items()}
        routing = [tap.name for tap in case.taps if tap.cls == "routing"]
        rows = comparable_rows(case.taps, routing, golden, answer, lambda _, gaps: np.ones(gaps.shape, bool)).rows
        for name, value in answer.items():
            valid = spread_mask(rows[name], specs[name].axes, value.shape) if name in rows else None
            if valid is None or valid.any():
                error = measure(value, golden[name], valid)
                worst[name] = [max(worst[name][0], error.rms), max(worst[name][1], error.max)]
    path = full.root / "floors" / f"{profile}.json"
    others = read_model(path, Floors).floors if path.exists() else {}
    return Floors(
        profile=profile,
        variants=[Variant(name=name, family="numpy", version=np.__version__) for name in VARIANTS],
        seeds=1,
        command=f"gemma4-conformance floors --model MODEL --profile {profile}",
        leave_one_family_out={},
        floors=others | {case.id: {name: [rounded_up(rms), rounded_up(peak)] for name, (rms, peak) in worst.items()}},
    )
