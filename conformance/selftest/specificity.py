"""Specificity: every honest implementation is judged, and none may be accused.

Implementations that helped to set a profile's floors are marked; the others are independent of the floors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from conformance.adapters.base import Adapter
from conformance.adapters.batched import BatchedAdapter
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import create
from conformance.calibration.honest import honest_variants
from conformance.judging.examine import OneJudgement
from conformance.judging.judge import Judge
from conformance.judging.probe import require_exact_products
from conformance.known_failures import KnownFailures
from conformance.local.judge import LocalJudge
from conformance.selftest.kill_matrix import asked_by
from conformance.selftest.stored_results import digest_of
from gemma4_contract import Fixtures
from gemma4_contract.progress import Progress
from reference.oracle.summation import OTHER_ORDERS


@dataclass(slots=True, kw_only=True)
class Trial:
    """The results of one honest implementation in one profile."""

    profile: str
    variant: str
    family: str
    sets_floor: bool
    passed: int = 0
    undecidable: int = 0
    skipped: int = 0
    known_failures: int = 0
    accused: list[str] = field(default_factory=list)


def other_variants() -> dict[str, Adapter]:
    """Honest implementations that set no floor."""
    variants: dict[str, Adapter] = {f"oracle {order}": OracleAdapter(order) for order in OTHER_ORDERS}
    variants["mlx_impl_fused"] = create("mlx_impl_fused")
    for name in ("mlx_impl", "transformers", "transformers_sdpa"):
        variants[f"{name} batched"] = BatchedAdapter(create(name))
    return variants


def trials(
    fixtures: Fixtures, profiles: Sequence[str], progress: Progress, judgement: OneJudgement = "chained"
) -> list[Trial]:
    """Judge every honest implementation in every profile; `local` on the cases that can be judged so, by both."""
    work = list(_work(fixtures, profiles))
    case_ids = asked_by(judgement, fixtures)
    total, done = len(work) * len(case_ids), 0
    results = []
    for trial, adapter in work:
        require_exact_products(fixtures, adapter, trial.variant, trial.profile)
        local = LocalJudge(fixtures, trial.profile) if judgement == "local" else None
        judge, known = Judge(fixtures, adapter, trial.profile, local), KnownFailures.of(trial.variant)
        for case_id in case_ids:
            progress(done, total, f"{trial.profile}, {trial.variant}")
            done += 1
            if judge.asks(case_id):
                _count(trial, judge, known, case_id)
        results.append(trial)
    progress(total, total, "done")
    return results


def _work(fixtures: Fixtures, profiles: Sequence[str]) -> Iterator[tuple[Trial, Adapter]]:
    for profile in profiles:
        setters = {variant.name for variant in fixtures.floors(profile).variants}
        variants: Mapping[str, Adapter] = honest_variants(profile) | other_variants()
        for name, adapter in variants.items():
            hello = adapter.hello()
            if hello.offers(profile):
                yield (
                    Trial(profile=profile, variant=name, family=hello.family, sets_floor=name in setters),
                    adapter,
                )


def _count(trial: Trial, judge: Judge, known: KnownFailures, case_id: str) -> None:
    verdict = judge.judge(case_id)
    if verdict.outcome in ("pass", "advice"):
        trial.passed += 1
    elif verdict.outcome == "undecidable":
        trial.undecidable += 1
    elif verdict.outcome == "skip":
        trial.skipped += 1
    elif known.explains(trial.profile, case_id, verdict.outcome):
        trial.known_failures += 1
    else:
        trial.accused.append(case_id)


def as_table(results: list[Trial]) -> str:
    """The trials as a Markdown table, one row a profile: part of docs/JUDGING.md."""
    rows = [
        "| profile | honest implementations | of them set no floor | verdicts | undecidable | accused |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for profile in dict.fromkeys(trial.profile for trial in results):
        mine = [trial for trial in results if trial.profile == profile]
        columns = (
            profile,
            len(mine),
            sum(not trial.sets_floor for trial in mine),
            sum(trial.passed + len(trial.accused) for trial in mine),
            sum(trial.undecidable for trial in mine),
            sum(len(trial.accused) for trial in mine),
        )
        rows.append(f"| {' | '.join(map(str, columns))} |")
    return "\n".join(rows)


def as_json(results: list[Trial], fixtures: Fixtures, judgement: OneJudgement = "chained") -> dict[str, object]:
    """The trials as JSON, with the number of accused implementations first, and the digest of their fixtures."""
    return {
        "accused": sum(len(trial.accused) for trial in results),
        "fixtures": digest_of(judgement, fixtures),
        "variants": [asdict(trial) for trial in results],
    }
