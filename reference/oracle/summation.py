"""The orders in which a sum of products may honestly be taken: rounding differs, the sum does not."""

from __future__ import annotations

from collections.abc import Iterable

from gemma4_contract.tensors import Array

ORDERS = ("blas", "sequential", "reversed", "split")
"""Orders that set floors."""

OTHER_ORDERS = ("blocks", "pairwise")
"""Orders that set no floors: honest too, so they must not be accused."""


def parts_of(order: str, count: int) -> list[slice]:
    """The parts of `count` terms that are each summed at once.

    "blas" leaves all to the library, "sequential" goes term by term as a plain loop does, "reversed" does so from the
    other end, "split" takes even and odd terms apart, "blocks" 16 terms at a time, and "pairwise" eight.
    """
    if order == "split":
        return [slice(0, None, 2), slice(1, None, 2)] if count > 1 else [slice(0, count)]
    size = {"blas": count, "sequential": 1, "reversed": 1, "blocks": 16, "pairwise": 8}[order]
    parts = [slice(start, min(start + size, count)) for start in range(0, count, max(size, 1))]
    return parts[::-1] if order == "reversed" else parts


def total_of(order: str, sums: Iterable[Array]) -> Array:
    """The sums of all parts added up: one after the other as they come, or pairs of pairs for "pairwise"."""
    if order == "pairwise":
        sums = list(sums)
        while len(sums) > 1:
            pairs = [sums[i] + sums[i + 1] for i in range(0, len(sums) - 1, 2)]
            sums = pairs + sums[len(pairs) * 2 :]
    coming = iter(sums)
    total = next(coming)
    for part in coming:
        total += part
    return total
