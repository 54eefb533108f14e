"""Measuring floors: the error that honest implementations make at every tap, over input seeds and plans.

Goldens of other seeds than the stored one come from the float64 oracle, so this module needs all of `reference`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal

import numpy as np

from conformance.adapters.base import Adapter, Array, Request, Skip
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import ADAPTERS, create
from conformance.judging.compare import Error, measure
from conformance.judging.judge import crash_line
from conformance.judging.logits_metrics import KL, NLL, whole_model
from conformance.judging.probe import require_exact_products
from conformance.judging.routing import Choice, Node, choices_of, comparable_rows
from conformance.judging.tolerance import tolerance
from conformance.known_failures import KnownFailures
from gemma4_contract import Fixtures, Floors, Policy
from gemma4_contract.layout import spread_mask
from gemma4_contract.models import Variant
from gemma4_contract.profiles import Profile
from gemma4_contract.progress import Progress
from reference.cases import Draft, all_drafts
from reference.cases.forward import golden_length
from reference.export.derive import by_oracle, single_threaded
from reference.export.errors import ExportError
from reference.layouts import LAYOUTS
from reference.models import MODELS
from reference.oracle.summation import ORDERS

SEEDED_PLANS = ("no-cache", "tokens", "padded")
"""Plans that other seeds than 0 are measured over, at the longest length."""


@dataclass(slots=True)
class Worst:
    """Largest errors at one tap."""

    rms: float = 0.0
    max: float = 0.0

    def take(self, error: Error) -> None:
        self.rms, self.max = max(self.rms, error.rms), max(self.max, error.max)


Table = dict[tuple[str, str], dict[str, Worst]]
"""(case id of the golden, tap) -> family -> worst errors."""


def honest_variants(profile: str) -> dict[str, Adapter]:
    """The implementations that set a profile's floors: all that can be named, NumPy in four orders of summation.

    The fast path sets none: it is held to what others reach.
    """
    variants: dict[str, Adapter] = {name: create(name) for name in ADAPTERS if name not in ("oracle", "mlx_impl_fused")}
    variants |= {f"oracle {order}": OracleAdapter(order) for order in ORDERS}
    variants["oracle fused"] = OracleAdapter(fused=True)
    if profile == "f64":  # MLX has no float64: NumPy varies more in its place
        variants["oracle reciprocal"] = OracleAdapter(reciprocal=True)
    return {name: adapter for name, adapter in variants.items() if adapter.hello().offers(profile)}


def measure_floors(
    fixtures: Fixtures, profile: str, adapters: Mapping[str, Adapter], seeds: int, command: str, progress: Progress
) -> Floors:
    """The floors of a profile over these implementations, their known failures left out.

    ExportError when one gives NaN or a wrong shape.
    """
    drafts = [(seed, draft) for seed in range(seeds) for draft in _drafts(seed, profile)]
    for name, adapter in adapters.items():
        require_exact_products(fixtures, adapter, name, profile)
    known = {name: KnownFailures.of(name) for name in adapters}
    families = {name: adapter.hello().family for name, adapter in adapters.items()}
    table: Table = defaultdict(lambda: defaultdict(Worst))
    golden: dict[tuple[str, str], Array] = {}
    for done, (seed, draft) in enumerate(drafts):
        progress(done, len(drafts), f"{draft.id}, seed {seed}")
        derived = _golden(draft)
        for name, adapter in adapters.items():
            if known[name].reason(profile, draft.id) is not None:
                continue
            with single_threaded():
                errors = list(_errors(fixtures, profile, name, adapter, draft, derived))
            for tap, error in errors:
                table[draft.owner, tap][families[name]].take(error)
        for tap, value in derived.items():
            golden.setdefault((draft.owner, tap), value)
    progress(len(drafts), len(drafts), "done")
    return _floors(fixtures.profile(profile), adapters, table, golden, seeds, command, fixtures.policy)


def _drafts(seed: int, profile: str) -> Iterator[Draft]:
    for draft in all_drafts(seed):
        if draft.model in LAYOUTS:  # the same weights and plan as the model's own golden
            continue
        if draft.exact or draft.exact_in or draft.advice or (draft.profiles and profile not in draft.profiles):
            continue
        if seed and draft.kind == "forward" and draft.model:
            _, _, length, plan = draft.id.split("/")
            if plan not in SEEDED_PLANS or not length.endswith(f"-l{golden_length(MODELS[draft.model])}"):
                continue
        yield draft


def _golden(draft: Draft) -> dict[str, Array]:
    """The golden as it would be stored: F32 for forward and layer cases, F64 for others; integers have no floor."""
    dtype = np.float32 if draft.kind in ("forward", "layer") else np.float64
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
    except Exception as crash:  # an implementation that is taken for honest must not
        raise ExportError(f"{draft.id}: {name}: {crash_line(crash)}") from None
    pads = draft.inputs.get("valid", np.ones((), bool)).astype(bool)
    taps = [tap for tap in draft.taps if tap.name in golden]
    choices = choices_of(taps, [tap.name for tap in taps if tap.is_routing], golden, answer)
    rows = certain_rows(taps, {tap: value.shape for tap, value in golden.items()}, choices)
    axes = {tap.name: tap.axes for tap in draft.taps}
    yield from errors_of(f"{draft.id}: {name}", axes, golden, answer, {tap: one & pads for tap, one in rows.items()})
    if draft.kind == "forward" and "logits" in answer:
        yield from _whole_model_errors(draft, golden["logits"], answer["logits"], rows["logits"] & pads)


def certain_rows(
    taps: Sequence[Node], shapes: Mapping[str, Sequence[int]], choices: Mapping[str, Choice]
) -> Mapping[str, Array]:
    """The rows [B, L] of every tap that has such, up to where the answer chose other experts."""
    return comparable_rows(taps, shapes, choices, lambda _, margins: np.ones(margins.shape, bool)).rows


def errors_of(
    who: str,
    axes: Mapping[str, Sequence[str]],
    golden: Mapping[str, Array],
    answer: Mapping[str, Array],
    rows: Mapping[str, Array],
) -> Iterator[tuple[str, Error]]:
    """The errors of an honest answer in the rows that count; ExportError for a wrong shape, NaN or infinity."""
    for tap, value in answer.items():
        if value.shape != golden[tap].shape:
            raise ExportError(f"{who} answers {tap} in shape {value.shape}, not {golden[tap].shape}")
        valid = spread_mask(rows[tap], axes[tap], value.shape) if tap in rows else None
        if valid is not None and not valid.any():
            continue
        error = measure(value, golden[tap], valid)
        if not (math.isfinite(error.rms) and math.isfinite(error.max)):
            raise ExportError(f"{who} answers {tap} with NaN or infinity, which sets no floor")
        yield tap, error


def _whole_model_errors(draft: Draft, golden: Array, answer: Array, rows: Array) -> Iterator[tuple[str, Error]]:
    """The figures of whole_model as errors of their own: KL mean and 99th percentile; the text's likelihood."""
    if rows.any():
        figures = whole_model(golden, answer, draft.inputs["ids"], np.broadcast_to(rows, golden.shape[:2]), movable=0.0)
        yield KL, Error(rms=figures.kl_mean, max=figures.kl_p99, worst=())
        yield NLL, Error(rms=figures.nll_difference, max=figures.nll_difference, worst=())


def _floors(
    profile: Profile,
    adapters: Mapping[str, Adapter],
    table: Table,
    golden: Mapping[tuple[str, str], Array],
    seeds: int,
    command: str,
    policy: Policy,
) -> Floors:
    floors: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (case, tap), families in sorted(table.items()):
        rms, peak = (max(getattr(worst, which) for worst in families.values()) for which in ("rms", "max"))
        floors[case][tap] = [rounded_up(rms), rounded_up(peak)]
    hellos = [(name, adapter.hello()) for name, adapter in adapters.items()]
    return Floors(
        profile=profile.id,
        variants=[Variant(name=name, family=hello.family, version=hello.version) for name, hello in hellos],
        seeds=seeds,
        command=command,
        leave_one_family_out=leave_one_out(table, golden, profile, policy),
        floors=dict(floors),
    )


def leave_one_out(
    table: Table, golden: Mapping[tuple[str, str], Array], profile: Profile, policy: Policy
) -> dict[str, float]:
    """For each family: would it have passed had it not helped to set the floors? Under `floor_factor` means yes."""
    ratios: dict[str, float] = defaultdict(float)
    for key, families in table.items():
        for family, worst in families.items():
            others = [other for name, other in families.items() if name != family]
            if not others or key not in golden:
                continue
            floor = [max(other.rms for other in others), max(other.max for other in others)]
            allowed = tolerance(floor, golden[key], profile, policy)
            for error, limit in ((worst.rms, allowed.rms), (worst.max, allowed.max)):
                if error:
                    ratios[family] = max(ratios[family], policy.floor_factor * error / limit)
    return {family: float(f"{ratio:.3g}") for family, ratio in sorted(ratios.items())}


def rounded_up(error: float) -> float:
    """Two significant digits, never below the measured error."""
    return float(Context(prec=2, rounding=ROUND_UP).create_decimal(Decimal(repr(error))))
