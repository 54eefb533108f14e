"""Teacher-forced mixtures of experts leave no choice to rounding, in any profile."""

from __future__ import annotations

import pytest

from gemma4_contract.routing import routing_margins
from tests.support.installed import FIXTURES

ROUTED = [
    (case, tap)
    for case in FIXTURES.cases()
    if case.kind in ("layer", "router")
    for tap in FIXTURES.taps(case)
    if tap.cls == "routing"
]


def test_there_are_such_cases() -> None:
    assert [case.id for case, _ in ROUTED] == [
        "layer/26b-a4b-mini/full-own-hot",
        "layer/26b-a4b-mini/sliding-own",
        "module/router/top-8-of-16",
    ]


@pytest.mark.parametrize("profile", FIXTURES.profiles)
@pytest.mark.parametrize(("case", "tap"), ROUTED, ids=[case.id for case, _ in ROUTED])
def test_every_margin_is_wide(profile: str, case, tap) -> None:  # type: ignore[no-untyped-def]  # of ROUTED
    golden, logits = FIXTURES.golden(case), tap.parents[0]
    floor = FIXTURES.floors(profile).floors[case.id][logits][1]
    needed = FIXTURES.policy.routing_margin * floor * abs(golden[logits]).max()
    assert routing_margins(golden[logits], golden[tap.name]).min() > needed
