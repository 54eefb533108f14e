"""Mixture of experts: the router and the experts."""

from collections.abc import Callable

CASES = ("module/router/*", "module/experts/*")


def test_moe(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
