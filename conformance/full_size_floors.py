"""Floors of a model at full size: what the oracle errs by in the profile's arithmetic, streamed; of slices also others.

NumPy alone streams, and so can measure what no memory holds: its orders of summation and its fused chains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.adapters.base import Array, Skip
from conformance.adapters.registry import create
from conformance.compare import measure
from conformance.floors import rounded_up
from conformance.question import Question
from conformance.routing import comparable_rows
from reference.export.full_size import kept_by_rule
from reference.format import Floors
from reference.format.documents import read_model
from reference.format.full_size import FullSize
from reference.format.layout import spread_mask
from reference.format.models import Profile, Variant
from reference.full_size import SLICES
from reference.models import Model
from reference.oracle.arithmetic import PROFILES, Arithmetic
from reference.progress import Progress

VARIANTS: Mapping[str, dict[str, Any]] = {
    "oracle blas": {},
    "oracle split": {"order": "split"},
    "oracle fused": {"fused": True},
}


def measure_full_size(model: Model, full: FullSize, profile: Profile, progress: Progress) -> Floors:
    """The table of the profile, what stands in it of other models kept.

    NumPy streams; of slices whose weights are materialised the named implementations answer as well.
    """
    case = next(case for case in full.cases() if case.model == model.id and case.taps)
    question = Question.of(full, case.id)
    measured = _Measured(question)
    for number, (variant, options) in enumerate(VARIANTS.items()):

        def told(done: int, total: int, what: str, number: int = number, variant: str = variant) -> None:
            progress(number * total + done, len(VARIANTS) * total, f"{variant}: {what}")

        measured.take(_streamed(model, question, dataclasses.replace(PROFILES[profile], **options), told))
    variants = [Variant(name=name, family="numpy", version=np.__version__) for name in VARIANTS]
    if model.id in SLICES and full.model_dir(model.id).is_dir():
        for name in ("transformers", "mlx_impl", "mlx_lm"):
            adapter = create(name)
            try:
                measured.take(question.stored_part(adapter.run(question.request(profile))))
            except Skip:
                continue
            hello = adapter.hello()
            variants.append(Variant(name=name, family=hello.family, version=hello.version))
    path = full.root / "floors" / f"{profile}.json"
    before = read_model(path, Floors) if path.exists() else None
    known = {variant.name: variant for variant in (before.variants if before else [])}
    return Floors(
        profile=profile,
        variants=list((known | {variant.name: variant for variant in variants}).values()),
        seeds=1,
        command=f"gemma4-conformance floors --model MODEL --profile {profile}",
        leave_one_family_out={},
        floors=(before.floors if before else {}) | {case.id: measured.floors},
    )


def _streamed(model: Model, question: Question, arithmetic: Arithmetic, progress: Progress) -> dict[str, Array]:
    """What the oracle answers in this arithmetic, of `logits` the entries that the golden holds."""
    logits = next(tap for tap in question.taps if tap.name == "logits")
    assert logits.picks is not None
    vocabulary = logits.picks.indices(logits.axes)[-1]
    kept = kept_by_rule(model, question.inputs["ids"], arithmetic, progress, vocabulary=vocabulary)
    return {name: one.values for name, one in kept.items()}


class _Measured:
    """The largest errors over all answers to a question."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._specs = {tap.name: tap for tap in question.taps}
        self._worst = dict.fromkeys(question.golden, (0.0, 0.0))

    def take(self, answer: Mapping[str, Array]) -> None:
        """Measure an answer, the rows left out in which it may have chosen other experts."""
        golden, taps = self._question.golden, self._question.taps
        routing = [tap.name for tap in taps if tap.cls == "routing"]
        rows = comparable_rows(taps, routing, golden, answer, lambda _, gaps: np.ones(gaps.shape, bool)).rows
        for name, value in answer.items():
            valid = spread_mask(rows[name], self._specs[name].axes, value.shape) if name in rows else None
            if valid is None or valid.any():
                error, (rms, peak) = measure(value, golden[name], valid), self._worst[name]
                self._worst[name] = (max(rms, error.rms), max(peak, error.max))

    @property
    def floors(self) -> dict[str, list[float]]:
        """[relative RMS, relative maximum] of every tap, to two digits."""
        return {name: [rounded_up(rms), rounded_up(peak)] for name, (rms, peak) in self._worst.items()}
