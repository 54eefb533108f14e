"""Products, sums, exp and tanh: the arithmetic that everything else rests on."""

from collections.abc import Callable

TOPIC = "arithmetic"


def test_arithmetic(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
