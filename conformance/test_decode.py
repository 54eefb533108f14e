"""Whole forward passes through the cache: one shot, chunks, token by token, padded batches."""

from collections.abc import Callable

CASES = ("forward/*/one-shot", "forward/*/chunks-*", "forward/*/tokens", "forward/*/padded", "forward/*/padded-mixed")


def test_decode(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
