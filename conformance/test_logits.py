"""The soft cap, and whole forward passes without a cache."""

from collections.abc import Callable

CASES = ("module/softcap/*", "forward/[!l]*/no-cache", "forward/*/padded-no-cache")  # no layouts: see test_loading


def test_logits(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
