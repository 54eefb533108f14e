"""Attention: masks, grouped queries, K = V."""

from collections.abc import Callable

TOPIC = "attention"


def test_attention(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
