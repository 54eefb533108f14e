"""Reading and writing files, and the weights by rule: what a port needs before it computes."""

from collections.abc import Callable

TOPIC = "smoke"


def test_smoke(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
