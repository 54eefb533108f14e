"""RoPE, default and proportional, and its inverse frequencies."""

from collections.abc import Callable

TOPIC = "rope"


def test_rope(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
