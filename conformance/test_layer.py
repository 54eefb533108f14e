"""One layer of every kind, teacher-forced."""

from collections.abc import Callable

TOPIC = "layer"


def test_layer(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
