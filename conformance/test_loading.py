"""Loading: the same weights in every layout in circulation."""

from collections.abc import Callable

TOPIC = "loading"


def test_loading(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
