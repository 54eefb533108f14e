"""Module cases: attention on given queries, keys and values; masks and grouped queries."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from reference.cases.draft import Draft, tap
from reference.cases.modules.module_draft import module_draft
from reference.inputs import values


def drafts(suffix: str) -> Iterator[Draft]:
    """The cases of attention on given queries, keys and values."""

    def case(
        name: str,
        purpose: str,
        *,
        heads: tuple[int, int],
        head_dim: int,
        queries: list[int],
        keys: list[int],
        window: int | None,
        scale: float = 0.0,
    ) -> Draft:
        q_std = scale or 1.4 / math.sqrt(head_dim)
        return module_draft(
            f"attention-core/{name}",
            purpose,
            {
                "q": values(f"attention-core/{name}#q{suffix}", (1, heads[0], len(queries), head_dim), q_std),
                "k": values(f"attention-core/{name}#k{suffix}", (1, heads[1], len(keys), head_dim)),
                "v": values(f"attention-core/{name}#v{suffix}", (1, heads[1], len(keys), head_dim)),
                "q_positions": np.array([queries], np.int32),
                "k_positions": np.array([keys], np.int32),
            },
            params={"window": window},
            taps=[tap("context", "B L H*E")],
        )

    run = list(range(19))
    yield case(
        "causal",
        "Four query heads over two key/value heads, causal.",
        heads=(4, 2),
        head_dim=16,
        queries=run,
        keys=run,
        window=None,
    )
    yield case(
        "three-to-one",
        "Three query heads to a key/value head.",
        heads=(6, 2),
        head_dim=16,
        queries=run[:8],
        keys=run[:8],
        window=None,
    )
    yield case(
        "window",
        "A window of 8 over 19 tokens: a query sees itself and the seven tokens before it.",
        heads=(4, 1),
        head_dim=16,
        queries=run,
        keys=run,
        window=8,
    )
    yield case(
        "ring",
        "One query over a ring buffer whose keys lie out of order.",
        heads=(4, 2),
        head_dim=16,
        queries=[10],
        keys=[8, 9, 10, 3, 4, 5, 6, 7],
        window=8,
    )
    yield case(
        "single-key",
        "One query and one key: the context is the value.",
        heads=(2, 1),
        head_dim=16,
        queries=[0],
        keys=[0],
        window=8,
    )
    yield case(
        "hot",
        "Scores up to 25, where a softmax in low precision breaks.",
        heads=(4, 2),
        head_dim=32,
        queries=run[:12],
        keys=run[:12],
        window=None,
        scale=1.0,
    )
    yield case(
        "head-dim-512",
        "The real head dim of full layers.",
        heads=(2, 1),
        head_dim=512,
        queries=run[:5],
        keys=run[:5],
        window=None,
    )
    name, head_dim = "far-apart", 32
    signs = np.where(values(f"attention-core/{name}#signs{suffix}", (head_dim,)) < 0, -1.0, 1.0)
    scores = np.array([45.0, 60.0, 50.0, 55.0, 40.0, 58.0])  # each a sum of products that every profile holds
    yield module_draft(
        f"attention-core/{name}",
        "Scores up to 60, a few apart: capped they would draw near to each other.",
        {
            "q": np.tile(signs / 4, (1, 2, 3, 1)),
            "k": (signs * scores[:, None] / 8)[None, None],
            "v": values(f"attention-core/{name}#v{suffix}", (1, 1, len(scores), head_dim)),
            "q_positions": np.array([[3, 4, 5]], np.int32),
            "k_positions": np.arange(len(scores), dtype=np.int32)[None],
        },
        params={"window": None},
        taps=[tap("context", "B L H*E")],
    )
