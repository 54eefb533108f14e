"""The soft cap, and whole forward passes without a cache."""

from collections.abc import Callable

TOPIC = "logits"


def test_logits(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
