"""The gated MLP and its activation."""

from collections.abc import Callable

TOPIC = "mlp"


def test_mlp(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
