"""Floors of a model at full size: what honest passes err by in the profile's arithmetic, streamed layer by layer.

The oracle streams, plain and with fused chains, and transformers does; of slices the MLX decoders answer as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers

from conformance.adapters.base import Array, Skip
from conformance.adapters.registry import create
from conformance.floors import Table, Worst, certain_rows, errors_of, leave_one_out, rounded_up
from conformance.question import Question
from conformance.routing import Choice
from reference.export.agreement import relative_rms
from reference.export.full_size import kept
from reference.export.second import kept_by_transformers
from reference.format import Floors
from reference.format.documents import read_model
from reference.format.full_size import FullSize
from reference.format.models import Profile, Variant
from reference.full_size import SLICES
from reference.oracle.arithmetic import BF16_EVERY_OP, PROFILES, Arithmetic
from reference.progress import Progress
from reference.streaming.kept import Kept
from reference.streaming.source import Source
from reference.taps import output_of

_ORDERS: Mapping[str, dict[str, Any]] = {
    "oracle blas": {},
    "oracle fused": {"fused": True},
}
_EVERY_OP = "oracle every op"
_ACCEPTED: Mapping[Profile, str] = {"f32": "oracle blas", "bf16": _EVERY_OP}
"""The pass whose error at the last layer is a figure of acceptance; one that rounds every operation sets no floor."""


def measure_full_size(
    source: Source, full: FullSize, profile: Profile, progress: Progress
) -> tuple[Floors, dict[str, float]]:
    """The table of the profile, what stands in it of other models kept; and the profile's figure of acceptance.

    A floor is the maximum over the whole text and its first tokens, as the cases ask for them.
    """
    questions = [
        Question.of(full, case.id)
        for case in full.cases()
        if case.model == source.id and case.plan is not None and case.plan.steps is None
    ]
    whole = next(question for question in questions if question.case.taps)
    table: Table = defaultdict(lambda: defaultdict(Worst))
    variants: list[Variant] = []
    accepted: dict[str, float] = {}
    for answer in _answers(source, whole, full, profile, progress):
        if answer.variant.name == _ACCEPTED.get(profile):
            last = output_of(source.config.num_hidden_layers)
            rows = _certain(whole, answer.differs)[last]  # [B, L]
            rows = rows if rows.any() else ~rows  # in bf16 every token of a deep mixture chose otherwise somewhere
            error = relative_rms(answer.values[last][rows], whole.golden[last][rows])
            accepted = {profile: rounded_up(error)}
        if answer.variant.name != _EVERY_OP:
            _take(table, questions, answer)
            variants.append(answer.variant)
    return _floors(source, whole, table, variants, profile, full), accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a variant answered, as far as it is stored, and where [B, L] it chose other experts."""

    variant: Variant
    values: Mapping[str, Array]
    differs: Mapping[str, Array]


def _answers(
    source: Source, whole: Question, full: FullSize, profile: Profile, progress: Progress
) -> Iterator[_Answer]:
    passes = streams(source, whole, profile)
    for number, (variant, run) in enumerate(passes.items()):

        def told(done: int, total: int, what: str, number: int = number, variant: str = variant.name) -> None:
            progress(number * total + done, len(passes) * total, f"{variant}: {what}")

        made = run(told)
        chosen = {name: one.chosen for name, one in made.items() if one.chosen is not None}
        yield _Answer(
            variant=variant,
            values={name: one.values for name, one in made.items()},
            differs={name: np.any(np.not_equal(ids, whole.chosen[name]), axis=-1) for name, ids in chosen.items()},
        )
    if source.id in SLICES and full.model_dir(source.id).is_dir():
        for name in ("mlx_impl", "mlx_lm"):
            adapter = create(name)
            try:
                answer = adapter.run(whole.request(profile))
            except Skip:
                continue
            hello = adapter.hello()
            choices = whole.choices(answer)
            yield _Answer(
                variant=Variant(name=name, family=hello.family, version=hello.version),
                values=whole.stored_part(answer),
                differs={name: one.differs for name, one in choices.items() if one.differs is not None},
            )


def _floors(
    source: Source, whole: Question, table: Table, variants: list[Variant], profile: Profile, full: FullSize
) -> Floors:
    path = full.root / "floors" / f"{profile}.json"
    before = read_model(path, Floors) if path.exists() else None
    ratios = dict(before.leave_one_family_out) if before else {}
    if not whole.chosen:  # families that chose other experts are measured over other rows
        golden = {key: whole.golden[key[1]] for key in table}
        for family, ratio in leave_one_out(table, golden, profile, full.policy).items():
            ratios[family] = max(ratio, ratios.get(family, 0.0))
    known = {variant.name: variant for variant in (before.variants if before else [])}
    worst = {
        tap: [rounded_up(max(getattr(one, which) for one in families.values())) for which in ("rms", "max")]
        for (_, tap), families in table.items()
    }
    return Floors(
        profile=profile,
        variants=list((known | {variant.name: variant for variant in variants}).values()),
        seeds=1,
        command=f"gemma4-conformance floors {source.option.split()[0]} MODEL --profile {profile}",
        leave_one_family_out=ratios,
        floors=(before.floors if before else {}) | {whole.case.id: worst},
    )


def streams(source: Source, whole: Question, profile: Profile) -> dict[Variant, Callable[[Progress], dict[str, Kept]]]:
    """The passes that stream, each as a function; of `logits` they keep what the golden holds."""
    ids, logits = whole.inputs["ids"], next(tap for tap in whole.taps if tap.name == "logits")
    assert logits.picks is not None
    vocabulary = logits.picks.indices(logits.axes)[-1]

    def oracle(arithmetic: Arithmetic) -> Callable[[Progress], dict[str, Kept]]:
        return lambda progress: kept(source, ids, arithmetic, progress, vocabulary=vocabulary)

    orders = {name: replace(PROFILES[profile], **options) for name, options in _ORDERS.items()}
    if profile == "bf16" and source.card.weights_rule is not None:
        orders[_EVERY_OP] = BF16_EVERY_OP
    passes = {
        Variant(name=name, family="numpy", version=np.__version__): oracle(arithmetic)
        for name, arithmetic in orders.items()
    }
    versions = f"{transformers.__version__}, torch {torch.__version__}"
    theirs = Variant(name="transformers streamed", family="torch", version=versions)
    passes[theirs] = lambda progress: kept_by_transformers(source, ids, profile, progress, vocabulary)
    return passes


def _take(table: Table, questions: list[Question], answer: _Answer) -> None:
    """Measure an answer, whole and cut to each question."""
    owner = next(question.case.id for question in questions if question.case.taps)
    for question in questions:
        golden, rows = question.golden, _certain(question, answer.differs)
        cut = {name: value[tuple(slice(size) for size in golden[name].shape)] for name, value in answer.values.items()}
        axes = {tap.name: tap.axes for tap in question.taps}
        for name, error in errors_of(f"{question.case.id}: {answer.variant.name}", axes, golden, cut, rows):
            table[owner, name][answer.variant.family].take(error)


def _certain(question: Question, differs: Mapping[str, Array]) -> dict[str, Array]:
    """The stored rows [B, L] of every tap up to where other experts were chosen."""
    length = question.inputs["ids"].shape[1]
    choices = {
        name: Choice(margins=question.chosen[f"{name}.margin"], differs=where[:, :length])
        for name, where in differs.items()
    }
    return question.stored_rows(certain_rows(question.taps, question.shapes, choices))
