"""Floors of a model at full size: the errors of honest passes in the profile's arithmetic.

Two texts are measured. Passes that multiply fast run the whole text and are measured at its stored rows. Its first
tokens are also run by passes that sum term by term; there the rows are measured together, and each row alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from conformance.calibration.error_table import ErrorTable, certain_rows, errors_of, rounded_up
from conformance.calibration.full_size_passes import BLAS, EVERY_OP, Pass, first_tokens, whole_text
from conformance.judging.question import Question
from conformance.judging.routing import Choice
from conformance.judging.tolerance import tolerance
from gemma4_contract import Fixtures, Floors
from gemma4_contract.documents import read_model
from gemma4_contract.models import Variant
from gemma4_contract.progress import Progress
from gemma4_contract.routing import Experts
from gemma4_contract.tensors import Array
from reference.export.agreement import relative_rms
from reference.full_size import stored_rows
from reference.streaming.source import Source
from reference.streaming.stored_taps import StoredTap
from reference.taps import output_of

FIRST_TOKENS = 32
_ACCEPTED: Mapping[str, str] = {"f32": BLAS, "bf16": EVERY_OP}
"""The pass whose error at the last layer is a figure of acceptance."""
_Answer = Mapping[str, StoredTap]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The measurements of one model."""

    floors: Floors
    """The table of the profile; its entries of other models are unchanged."""
    acceptance: dict[str, float]
    """The profile's figure of acceptance."""
    ratios: dict[str, float]
    """Family -> largest error over the floor that the others set, on the first tokens."""


def measure_full_size(
    source: Source, full: Fixtures, profile: str, progress: Progress, *, first_only: bool = False
) -> Measured:
    """Measure both texts; or only the first tokens, which raise the stored floors where their error is larger."""
    questions = [
        Question.of(full, case.id)
        for case in full.cases()
        if case.model == source.id and case.plan is not None and case.plan.steps is None
    ]
    whole = next(question for question in questions if question.case.taps)
    ids = whole.inputs["ids"]
    on_whole = [] if first_only else whole_text(source, whole, profile)
    on_first = first_tokens(source, whole, full, profile)
    numbers, total = count(), len(on_whole) + len(on_first)

    def answers(passes: Sequence[Pass], ids: Array, rows: Sequence[int]) -> Iterator[tuple[Variant, _Answer]]:
        for run in passes:
            yield from run(ids, rows, _share(progress, next(numbers), total, f"{ids.shape[1]} tokens"))

    table, first = ErrorTable(), ErrorTable()
    variants: list[Variant] = []
    acceptance: dict[str, float] = {}
    for who, answer in answers(on_whole, ids, stored_rows(source)):
        if who.name == _ACCEPTED.get(profile):
            acceptance = {profile: _error_at_the_end(source, whole, answer)}
        if who.name != EVERY_OP:
            _add(table, questions, who, answer)
    coming = answers(on_first, ids[:, :FIRST_TOKENS], range(min(ids.shape[1], FIRST_TOKENS)))
    _, golden = next(coming)
    for who, answer in coming:
        _add_rows(first, whole, golden, who, answer)
        variants.append(who)
    ratios = _ratios(whole, first, profile, full)
    floors = _floors(source, whole, [table, first], variants, ratios, profile, full, keep=first_only)
    return Measured(floors=floors, acceptance=acceptance, ratios=ratios)


def _share(progress: Progress, number: int, total: int, label: str) -> Progress:
    """The progress of one pass of several."""
    return lambda done, parts, what: progress(number * parts + done, total * parts, f"{label}: {what}")


# The errors.


def _experts(answer: _Answer) -> dict[str, Experts]:
    """The stored choices of experts of an answer."""
    return {
        name: Experts.numbered(one.chosen, one.margins, one.whole[-1])
        for name, one in answer.items()
        if one.chosen is not None and one.margins is not None
    }


def _choices(answer: _Answer, experts: Mapping[str, Experts]) -> dict[str, Choice]:
    """The choices of an answer to this text, or to a longer one, with the golden's choices."""
    found = {}
    for name, got in _experts(answer).items():
        expected = experts[name]
        differs = (got.chosen[:, : expected.chosen.shape[1]] != expected.chosen).any(-1)
        found[name] = Choice(margins=expected.margins, differs=differs)
    return found


def _error_at_the_end(source: Source, whole: Question, answer: _Answer) -> float:
    """Relative RMS error of the last layer over rows that choose the golden's experts; over all rows if none do."""
    last = output_of(source.config.num_hidden_layers)
    rows = _certain(whole, answer)[last]  # [B, L]
    rows = rows if rows.any() else ~rows
    return rounded_up(relative_rms(answer[last].values[rows], whole.golden[last][rows]))


def _certain(question: Question, answer: _Answer) -> dict[str, Array]:
    """The stored rows [B, L] of every tap up to where other experts were chosen."""
    stored = question.stored
    return stored.stored_rows(certain_rows(question.taps, stored.shapes, _choices(answer, stored.experts)))


def _add(table: ErrorTable, questions: Sequence[Question], variant: Variant, answer: _Answer) -> None:
    """Measure an answer to the whole text, whole and cut to each question."""
    owner = next(question for question in questions if question.case.taps)
    for question in questions:
        golden, rows = question.golden, _certain(question, answer)
        cut = {name: one.values[tuple(map(slice, golden[name].shape))] for name, one in answer.items()}
        axes = {tap.name: tap.axes for tap in question.taps}
        errors = errors_of(f"{question.case.id}: {variant.name}", axes, golden, cut, rows)
        table.add(owner.case.id, variant.family, errors)


def _add_rows(table: ErrorTable, whole: Question, golden: _Answer, variant: Variant, answer: _Answer) -> None:
    """Measure an answer to the first tokens: all rows that count, and each of them alone."""
    choices = _choices(answer, _experts(golden))
    expected = {name: one.values for name, one in golden.items()}
    values = {name: one.values for name, one in answer.items()}
    axes = {tap.name: tap.axes for tap in whole.taps}
    certain = certain_rows(whole.taps, {name: value.shape for name, value in expected.items()}, choices)
    length = next(iter(certain.values())).shape[1]
    alone = ({name: rows & (np.arange(length) == row) for name, rows in certain.items()} for row in range(length))
    for rows in (certain, *alone):
        errors = errors_of(f"{whole.case.id}: {variant.name}", axes, expected, values, rows)
        table.add(whole.case.id, variant.family, errors)


# The results.


def _ratios(whole: Question, first: ErrorTable, profile: str, full: Fixtures) -> dict[str, float]:
    """Ratios of models without experts; with experts, families that chose others are measured over other rows."""
    if whole.stored.experts:
        return {}
    return first.leave_one_out(
        lambda key, floor: tolerance(floor, whole.golden[key[1]], full.profile(profile), full.policy), full.policy
    )


def _floors(
    source: Source,
    whole: Question,
    tables: Sequence[ErrorTable],
    variants: Sequence[Variant],
    ratios: Mapping[str, float],
    profile: str,
    full: Fixtures,
    *,
    keep: bool,
) -> Floors:
    path = full.root / "floors" / f"{profile}.json"
    before = read_model(path, Floors) if path.exists() else None
    floors = dict(before.floors) if before else {}
    stored = floors.get(whole.case.id, {}) if keep else {}
    worst: dict[str, list[float]] = {name: list(floor) for name, floor in stored.items()}
    for table in tables:
        for name, measured in table.floors().get(whole.case.id, {}).items():
            worst[name] = [max(pair) for pair in zip(measured, worst.get(name, [0.0, 0.0]), strict=True)]
    others = {} if before is None else before.leave_one_family_out
    known = {variant.name: variant for variant in (before.variants if before else [])}
    return Floors(
        profile=profile,
        variants=list((known | {variant.name: variant for variant in variants}).values()),
        seeds=1,
        command=f"gemma4-conformance floors {source.option.split()[0]} MODEL --profile {profile}",
        leave_one_family_out=others | {f"{source.id}/{family}": ratio for family, ratio in ratios.items()},
        floors=floors | {whole.case.id: worst},
    )
