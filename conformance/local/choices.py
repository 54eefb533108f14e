"""Routers' choices in a local judgement: a port's choice must follow its own logits, and near a tie either will do.

B batch, L length, X experts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conformance.judging.routing import TapLike
from conformance.local.bridges import used_parents
from gemma4_contract import Policy
from gemma4_contract.graph import text_graph
from gemma4_contract.layout import row_axis
from gemma4_contract.profiles import Profile
from gemma4_contract.routing import routing_margins
from gemma4_contract.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """How far apart two router logits may lie that rounding may swap."""

    profile: Profile
    policy: Policy
    offered: Collection[str]
    """The taps of the answer: such logits are what the router chose by, and only their last bits are in doubt."""
    floors: Mapping[str, Sequence[float]]
    """The case's own floors, which say how far logits may err that had to be computed; without one any may swap."""

    def of(self, tap: str, logits: Array) -> Array:
        """The distance at each row of logits, [B, L, X] -> [B, L]; an ulp is 2 u of the largest."""
        peaks: Array = np.abs(logits).max(-1)
        if tap in self.offered:
            return peaks * (self.policy.ulps * 2 * self.profile.unit_roundoff)
        known = self.floors.get(tap)
        return np.full(peaks.shape, self.policy.routing_margin * known[1] * peaks.max() if known else np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the routers of an answer leave open."""

    followed: Mapping[str, Array]
    """Tap of router logits -> the experts to go on with, boolean [B, L, X]: the port's where rounding may decide."""
    hidden: Mapping[str, Array]
    """Routing tap that the port does not offer -> rows [B, L] where rounding may decide, so that nobody knows."""


def choices(
    taps: Sequence[TapLike], offered: Mapping[str, Array], predicted: Mapping[str, Array], slack: Slack
) -> Choices:
    """The choices to follow of an answer, given what is predicted from the logits that it offers."""
    followed, hidden = {}, {}
    for tap in taps:
        if tap.cls != "routing":
            continue
        source = tap.parents[0]
        logits = offered.get(source, predicted[source])
        own, may_err = predicted[tap.name] != 0, slack.of(source, logits)
        if tap.name not in offered:
            hidden[tap.name] = routing_margins(logits, own) <= may_err
            continue
        got = offered[tap.name] != 0
        as_many = got.sum(-1) == own.sum(-1)
        follow = (got != own).any(-1) & as_many & (-routing_margins(logits, got) <= may_err)
        if follow.any():
            followed[source] = np.where(follow[..., None], got, True)
    return Choices(followed=followed, hidden=hidden)


def decided_rows(
    taps: Sequence[TapLike], offered: Collection[str], rows: tuple[int, ...], hidden: Mapping[str, Array]
) -> dict[str, Array]:
    """The rows [B, L] of each tap that do not depend on a hidden choice; `rows` is (B, L), `taps` in execution order.

    A tap that the port offers stops the doubt: what comes after is computed from it.
    """
    found: dict[str, Array] = {}
    for tap in taps:
        if row_axis(tap.axes) is None or "B" not in tap.axes:
            continue
        kept = np.ones(rows, bool)
        for parent in used_parents(tap, offered):
            if parent not in offered:
                kept = kept & found.get(parent, True)
        if text_graph().mixes_rows(tap.name):
            kept = np.logical_and.accumulate(kept, axis=1)
        found[tap.name] = kept & ~hidden[tap.name] if tap.name in hidden else kept
    return found
