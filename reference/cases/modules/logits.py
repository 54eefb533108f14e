"""Module cases: the soft cap."""

from __future__ import annotations

from collections.abc import Iterator

from reference.cases.draft import Draft
from reference.cases.modules.module_draft import module_draft
from reference.inputs import grid


def drafts() -> Iterator[Draft]:
    """The cases of the soft cap."""
    for cap in (30.0, 12.0):
        yield module_draft(
            f"softcap/cap-{cap:.0f}",
            f"cap * tanh(x / cap) with cap {cap:.0f} and |x| up to 120.",
            {"x": grid(-120.0, 120.0, 300)[None, None]},
            params={"cap": cap},
            axes="B L V",
        )
