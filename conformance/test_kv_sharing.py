"""KV sharing: the donors, and attention on another layer's keys and values."""

from collections.abc import Callable

TOPIC = "kv-sharing"


def test_kv_sharing(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
