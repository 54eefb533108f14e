"""Module cases: one module on given inputs, without a checkpoint. The cheapest and sharpest questions."""

from __future__ import annotations

from collections.abc import Iterator

from reference.cases.draft import Draft
from reference.cases.modules import arithmetic, attention, embedding, feed_forward, kv_sharing, logits, norm, rope


def drafts(seed: int = 0) -> Iterator[Draft]:
    """The module cases; any seed but 0 draws other inputs where the case draws any."""
    suffix = f"#seed{seed}" if seed else ""
    yield from arithmetic.drafts(suffix)
    yield from norm.drafts(suffix)
    yield from rope.drafts(suffix)
    yield from embedding.drafts(suffix)
    yield from attention.drafts(suffix)
    yield from kv_sharing.drafts()
    yield from feed_forward.drafts(suffix)
    yield from logits.drafts()
