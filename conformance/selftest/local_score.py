"""What the local judgement alone sees of the known mistakes: the rows of its own kill matrix, counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conformance.selftest.kill_matrix import Result
from reference.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalScore:
    """The mutants of one profile that change something there, by what the local judgement sees of them."""

    profile: str
    seen: tuple[str, ...]
    at_the_node: tuple[str, ...]
    """Those seen that every case which sees them sees first where they were expected."""
    unseen: tuple[str, ...]
    """Those that only goldens show."""


def local_scores(results: Sequence[Result], catalogue: Mapping[str, Mutant]) -> list[LocalScore]:
    """The score of every profile that has results, in their order."""
    scores = []
    for profile in dict.fromkeys(result.profile for result in results):
        real = [
            result
            for result in results
            if result.profile == profile and profile not in catalogue[result.mutant].equivalent_in
        ]
        scores.append(
            LocalScore(
                profile=profile,
                seen=tuple(result.mutant for result in real if result.witness),
                at_the_node=tuple(result.mutant for result in real if result.located),
                unseen=tuple(result.mutant for result in real if not result.witness),
            )
        )
    return scores


def as_table(scores: Sequence[LocalScore]) -> str:
    """The scores as a Markdown table, one row a profile, and the ids of those not seen: part of docs/NUMERICS.md."""
    rows = [
        "| profile | known mistakes that change something | seen | of these at the node itself | left to the goldens |",
        "| --- | --- | --- | --- | --- |",
    ]
    for score in scores:
        real, seen = len(score.seen) + len(score.unseen), len(score.seen)
        rows.append(f"| {score.profile} | {real} | {seen} | {len(score.at_the_node)} | {len(score.unseen)} |")
    left = [
        f"* Left to the goldens in {score.profile}: {', '.join(map('`{}`'.format, score.unseen))}." for score in scores
    ]
    return "\n".join([*rows, "", *left])
