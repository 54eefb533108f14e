"""Per-layer embeddings (PLE)."""

from collections.abc import Callable

TOPIC = "ple"


def test_ple(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
