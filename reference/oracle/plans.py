"""Plans: how a case feeds its tokens, and the taps of all calls as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from gemma4_contract.graph import text_graph
from gemma4_contract.recording import Pieces
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KVCache


def run(
    decoder: Decoder,
    ids: Array,
    positions: Array,
    *,
    valid: Array | None = None,
    steps: Sequence[int] | None = None,
    want: Collection[str] | None = None,
) -> dict[str, Array]:
    """Taps of ids [B, L] fed in `steps` (None: one call without a cache), concatenated along L.

    `want` names the taps to keep, all by default. ValueError when the steps do not add up to L.
    """
    length = ids.shape[1]
    if steps is not None and sum(steps) != length:
        raise ValueError(f"the steps {list(steps)} add up to {sum(steps)} tokens, the case has {length}")
    cache = None if steps is None else KVCache()
    pieces: Pieces[Array] = Pieces(want)
    start = 0
    for step in steps or [length]:
        rows = slice(start, start + step)
        decoder.forward(ids[:, rows], positions[:, rows], None if valid is None else valid[:, rows], cache, pieces)
        start += step
    # S grows with the calls, so the probabilities of several calls do not form one tensor.
    graph = text_graph()
    whole = {name: values for name, values in pieces.taps.items() if graph.is_asked(name, plain=len(values) == 1)}
    return {
        name: values[0] if len(values) == 1 else np.concatenate(values, graph.length_axis(name))
        for name, values in whole.items()
    }
