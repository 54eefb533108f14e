"""Whole forward passes through the cache: one shot, chunks, token by token, padded batches."""

from collections.abc import Callable

TOPIC = "decode"


def test_decode(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
