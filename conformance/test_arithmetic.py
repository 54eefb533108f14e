"""Products, sums, exp and tanh: the arithmetic that everything else rests on."""

from collections.abc import Callable

CASES = ("module/linear/*", "module/long-sum/*", "module/exp-tanh/*")


def test_arithmetic(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
