"""The scaled token embedding."""

from collections.abc import Callable

TOPIC = "embedding"


def test_embedding(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
