"""Measures floors: the error that honest implementations make at every tap, over input seeds and plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import numpy as np

from conformance.adapters.base import Adapter
from conformance.adapters.registry import BadOption
from conformance.calibration.error_table import ErrorTable, Key, certain_rows, errors_of
from conformance.calibration.honest import HonestAnswer, drafts_of, honest_answers, variants_of
from conformance.judging.compare import Error
from conformance.judging.logits_metrics import KL, NLL, whole_model
from conformance.judging.routing import choices_of
from conformance.judging.tolerance import Tolerance, tolerance
from gemma4_contract import Fixtures, Floors, Policy
from gemma4_contract.models import Variant
from gemma4_contract.profiles import Profile
from gemma4_contract.progress import Progress
from gemma4_contract.routing import Experts
from gemma4_contract.tensors import Array
from reference.cases import Draft


def measure_floors(
    fixtures: Fixtures,
    profile: str,
    adapters: Mapping[str, Adapter],
    seeds: int,
    command: str,
    progress: Progress,
    cases: str = "*",
) -> Floors:
    """The floors of a profile over these implementations, their known failures left out.

    It measures the goldens whose case id matches the glob `cases`, with all cases that point into them.
    ExportError when an implementation gives NaN or a wrong shape.
    """
    drafts = ((seed, draft) for seed in range(seeds) for draft in drafts_of(seed, profile))
    asked = [(seed, draft) for seed, draft in drafts if fnmatchcase(draft.owner, cases)]
    table = ErrorTable()
    golden: dict[Key, Array] = {}
    for one in honest_answers(fixtures, profile, adapters, asked, progress):
        table.add(one.draft.owner, one.family, _errors(one))
        for tap, value in one.golden.items():
            golden.setdefault((one.draft.owner, tap), value)
    return _floors(fixtures.profile(profile), adapters, table, golden, seeds, command, fixtures.policy)


def require_same_makers(stored: Floors, variants: list[Variant], seeds: int) -> None:
    """BadOption unless the stored floors come from these variants and as many seeds."""
    if (stored.variants, stored.seeds) != (variants, seeds):
        raise BadOption("--cases: the stored floors come from other variants, versions or seeds: measure all cases")


def with_measured(stored: Floors, measured: Floors) -> Floors:
    """The stored floors, those of the measured cases replaced, if the same variants measured both.

    BadOption if they did not, or if no case was measured.
    """
    require_same_makers(stored, measured.variants, measured.seeds)
    if not measured.floors:
        raise BadOption("--cases: got a glob that matches no case with a golden of its own; try 'subgraph/*'")
    families = sorted({*stored.leave_one_family_out, *measured.leave_one_family_out})
    ratios = {
        family: max(floors.leave_one_family_out.get(family, 0.0) for floors in (stored, measured))
        for family in families
    }
    update = {"floors": {**stored.floors, **measured.floors}, "leave_one_family_out": ratios}
    return stored.model_copy(update=update)


def _errors(one: HonestAnswer) -> Iterator[tuple[str, Error]]:
    draft, golden, answer = one.draft, one.golden, one.answer
    pads = draft.inputs.get("valid", np.ones((), bool)).astype(bool)
    taps = [tap for tap in draft.taps if tap.name in golden]
    experts = {tap.name: Experts.of(golden[tap.parents[0]], golden[tap.name]) for tap in taps if tap.cls == "routing"}
    choices = choices_of(experts, answer)
    rows = certain_rows(taps, {tap: value.shape for tap, value in golden.items()}, choices)
    axes = {tap.name: tap.axes for tap in draft.taps}
    yield from errors_of(one.who, axes, golden, answer, {tap: one & pads for tap, one in rows.items()})
    if draft.kind == "forward" and "logits" in answer:
        yield from _whole_model_errors(draft, golden["logits"], answer["logits"], rows["logits"] & pads)


def _whole_model_errors(draft: Draft, golden: Array, answer: Array, rows: Array) -> Iterator[tuple[str, Error]]:
    """The figures of the logits as errors: KL divergence (mean and 99th percentile), and the text's likelihood."""
    if rows.any():
        figures = whole_model(golden, answer, draft.inputs["ids"], np.broadcast_to(rows, golden.shape[:2]), movable=0.0)
        yield KL, Error(rms=figures.kl_mean, max=figures.kl_p99, worst=())
        yield NLL, Error(rms=figures.nll_difference, max=figures.nll_difference, worst=())


def _floors(
    profile: Profile,
    adapters: Mapping[str, Adapter],
    table: ErrorTable,
    golden: Mapping[Key, Array],
    seeds: int,
    command: str,
    policy: Policy,
) -> Floors:
    def allowed(key: Key, floor: list[float]) -> Tolerance | None:
        return tolerance(floor, golden[key], profile, policy) if key in golden else None

    return Floors(
        profile=profile.id,
        variants=variants_of(adapters),
        seeds=seeds,
        command=command,
        leave_one_family_out=table.leave_one_out(allowed, policy),
        floors=table.floors(),
    )
