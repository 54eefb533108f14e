"""Mixture of experts: the router and the experts."""

from collections.abc import Callable

TOPIC = "moe"


def test_moe(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
