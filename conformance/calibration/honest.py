"""Honest implementations, and their answers to the questions that floors are measured on.

Goldens of other seeds than the stored one come from the float64 oracle, so this module needs `reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.adapters.base import Adapter, Request, Skip
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import ADAPTERS, create
from conformance.judging.judge import crash_line
from conformance.judging.probe import require_exact_products
from conformance.known_failures import KnownFailures
from gemma4_contract import Fixtures
from gemma4_contract.models import Variant
from gemma4_contract.progress import Progress
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HonestAnswer:
    """One answer, with the question and its golden."""

    draft: Draft
    golden: Mapping[str, Array]
    name: str
    family: str
    answer: Mapping[str, Array]

    @property
    def who(self) -> str:
        """Case and implementation, for messages."""
        return f"{self.draft.id}: {self.name}"


def honest_answers(
    fixtures: Fixtures,
    profile: str,
    adapters: Mapping[str, Adapter],
    asked: Sequence[tuple[int, Draft]],
    progress: Progress,
) -> Iterator[HonestAnswer]:
    """The answers of all implementations to (seed, draft), question by question, their known failures left out.

    Whoever takes an answer computes on one thread meanwhile. ExportError when an implementation raises.
    """
    for name, adapter in adapters.items() if asked else ():
        require_exact_products(fixtures, adapter, name, profile)
    known = {name: KnownFailures.of(name) for name in adapters}
    families = {name: adapter.hello().family for name, adapter in adapters.items()}
    for done, (seed, draft) in enumerate(asked):
        progress(done, len(asked), f"{draft.id}, seed {seed}")
        golden = _golden(draft)
        for name, adapter in adapters.items():
            if known[name].reason(profile, draft.id) is not None:
                continue
            with single_threaded():
                answer = _answer(fixtures, profile, name, adapter, draft, golden)
                if answer is not None:
                    yield HonestAnswer(draft=draft, golden=golden, name=name, family=families[name], answer=answer)
    progress(len(asked), len(asked), "done")


def variants_of(adapters: Mapping[str, Adapter]) -> list[Variant]:
    """The implementations that measure, as the floors name them."""
    hellos = ((name, adapter.hello()) for name, adapter in adapters.items())
    return [Variant(name=name, family=hello.family, version=hello.version) for name, hello in hellos]


def drafts_of(seed: int, profile: str) -> Iterator[Draft]:
    """The drafts of one seed that have a floor in a profile; of other seeds than 0 fewer plans."""
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


def _answer(
    fixtures: Fixtures, profile: str, name: str, adapter: Adapter, draft: Draft, golden: Mapping[str, Array]
) -> Mapping[str, Array] | None:
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
        return adapter.run(request)
    except Skip:
        return None
    except Exception as crash:  # an implementation that counts as honest must not
        raise ExportError(f"{draft.id}: {name}: {crash_line(crash)}") from None
