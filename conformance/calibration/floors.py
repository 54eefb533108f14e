"""Measures floors: the error that honest implementations make at every tap, over input seeds and plans.

Goldens of other seeds than the stored one come from the float64 oracle, so this module needs `reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import numpy as np

from conformance.adapters.base import Adapter, Request, Skip
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import ADAPTERS, BadOption, create
from conformance.calibration.error_table import ErrorTable, certain_rows, errors_of
from conformance.judging.compare import Error
from conformance.judging.judge import crash_line
from conformance.judging.logits_metrics import KL, NLL, whole_model
from conformance.judging.probe import require_exact_products
from conformance.judging.routing import choices_of
from conformance.known_failures import KnownFailures
from gemma4_contract import Fixtures, Floors, Policy
from gemma4_contract.models import Variant
from gemma4_contract.profiles import Profile
from gemma4_contract.progress import Progress
from gemma4_contract.routing import Experts
from gemma4_contract.tensors import Array
from reference.cases import Draft, all_drafts
from reference.cases.forward import golden_length
from reference.export.case_files import SINGLE
from reference.export.derive import by_oracle, single_threaded
from reference.export.errors import ExportError
from reference.layouts import LAYOUTS
from reference.models import MODELS
from reference.oracle.summation import ORDERS

SEEDED_PLANS = ("no-cache", "tokens", "padded")
"""Plans that other seeds than 0 are measured over, at the longest length."""


def honest_variants(profile: str) -> dict[str, Adapter]:
    """The implementations that set a profile's floors: those marked in the registry, and NumPy in several orders.

    MLX has no float64; in f64 one more NumPy variant takes its place.
    """
    variants: dict[str, Adapter] = {name: create(name) for name, entry in ADAPTERS.items() if entry.sets_floors}
    variants |= {f"oracle {order}": OracleAdapter(order) for order in ORDERS}
    variants["oracle fused"] = OracleAdapter(fused=True)
    if profile == "f64":
        variants["oracle reciprocal"] = OracleAdapter(reciprocal=True)
    return {name: adapter for name, adapter in variants.items() if adapter.hello().offers(profile)}


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
    asked = ((seed, draft) for seed in range(seeds) for draft in _drafts(seed, profile))
    drafts = [(seed, draft) for seed, draft in asked if fnmatchcase(draft.owner, cases)]
    for name, adapter in adapters.items() if drafts else ():
        require_exact_products(fixtures, adapter, name, profile)
    known = {name: KnownFailures.of(name) for name in adapters}
    families = {name: adapter.hello().family for name, adapter in adapters.items()}
    table = ErrorTable()
    golden: dict[tuple[str, str], Array] = {}
    for done, (seed, draft) in enumerate(drafts):
        progress(done, len(drafts), f"{draft.id}, seed {seed}")
        derived = _golden(draft)
        for name, adapter in adapters.items():
            if known[name].reason(profile, draft.id) is not None:
                continue
            with single_threaded():
                table.add(draft.owner, families[name], _errors(fixtures, profile, name, adapter, draft, derived))
        for tap, value in derived.items():
            golden.setdefault((draft.owner, tap), value)
    progress(len(drafts), len(drafts), "done")
    return _floors(fixtures.profile(profile), adapters, table, golden, seeds, command, fixtures.policy)


def variants_of(adapters: Mapping[str, Adapter]) -> list[Variant]:
    """The implementations that measure, as the floors name them."""
    hellos = ((name, adapter.hello()) for name, adapter in adapters.items())
    return [Variant(name=name, family=hello.family, version=hello.version) for name, hello in hellos]


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


def _drafts(seed: int, profile: str) -> Iterator[Draft]:
    for draft in all_drafts(seed):
        if draft.model in LAYOUTS:  # same weights and plan as the model's own golden
            continue
        if draft.exact or draft.exact_in or draft.advice or (draft.profiles and profile not in draft.profiles):
            continue
        if seed and draft.kind == "forward" and draft.model:
            whole = draft.inputs["ids"].shape[1] == golden_length(MODELS[draft.model])
            if draft.plan_name not in SEEDED_PLANS or not whole:
                continue
        yield draft


def _golden(draft: Draft) -> dict[str, Array]:
    """The golden as it would be stored: F32 for some kinds, F64 for others; integers have no floor."""
    dtype = np.float32 if draft.kind in SINGLE else np.float64
    derived = by_oracle(draft)
    return {
        tap.name: derived[tap.name].astype(dtype)
        for tap in draft.taps
        if tap.name in derived and derived[tap.name].dtype.kind == "f"
    }


def _errors(
    fixtures: Fixtures, profile: str, name: str, adapter: Adapter, draft: Draft, golden: Mapping[str, Array]
) -> Iterator[tuple[str, Error]]:
    request = Request(
        case=draft.id,
        kind=draft.kind,
        profile=profile,
        model_dir=fixtures.model_dir(draft.model) if draft.model else None,
        plan=draft.plan,
        params=draft.params,
        inputs=draft.inputs,
        want=tuple(golden),
    )
    try:
        answer = adapter.run(request)
    except Skip:
        return
    except Exception as crash:  # an implementation that counts as honest must not
        raise ExportError(f"{draft.id}: {name}: {crash_line(crash)}") from None
    pads = draft.inputs.get("valid", np.ones((), bool)).astype(bool)
    taps = [tap for tap in draft.taps if tap.name in golden]
    experts = {tap.name: Experts.of(golden[tap.parents[0]], golden[tap.name]) for tap in taps if tap.cls == "routing"}
    choices = choices_of(experts, answer)
    rows = certain_rows(taps, {tap: value.shape for tap, value in golden.items()}, choices)
    axes = {tap.name: tap.axes for tap in draft.taps}
    yield from errors_of(f"{draft.id}: {name}", axes, golden, answer, {tap: one & pads for tap, one in rows.items()})
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
    golden: Mapping[tuple[str, str], Array],
    seeds: int,
    command: str,
    policy: Policy,
) -> Floors:
    return Floors(
        profile=profile.id,
        variants=variants_of(adapters),
        seeds=seeds,
        command=command,
        leave_one_family_out=table.leave_one_out(golden, profile, policy),
        floors=table.floors(),
    )
