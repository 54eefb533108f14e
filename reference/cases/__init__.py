"""The cases: descriptions and inputs, before they get goldens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from reference.cases import forward, layer, modules, smoke
from reference.cases.draft import Draft

__all__ = ["Draft", "all_drafts"]


def all_drafts(seed: int = 0) -> Iterator[Draft]:
    """Every case; seed 0 gives those of the fixtures, any other seed other inputs, for measuring floors."""
    return itertools.chain(smoke.drafts(), modules.drafts(seed), layer.drafts(seed), forward.drafts(seed))
