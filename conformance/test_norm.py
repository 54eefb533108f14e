"""RMSNorm."""

from collections.abc import Callable

TOPIC = "norm"


def test_norm(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
