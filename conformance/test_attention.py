"""Attention: masks, grouped queries, K = V."""

from collections.abc import Callable

CASES = ("module/attention-core/*", "attention/*-own*")


def test_attention(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
