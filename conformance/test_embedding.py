"""The scaled token embedding."""

from collections.abc import Callable

CASES = ("module/embedding/*",)


def test_embedding(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
