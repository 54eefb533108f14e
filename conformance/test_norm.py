"""RMSNorm."""

from collections.abc import Callable

CASES = ("module/rms-norm/*",)


def test_norm(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
