"""A forward pass layer by layer, which can be stopped behind any of them and gone on with."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gemma4_contract.files import write_atomic
from gemma4_contract.progress import Progress
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.streaming.kept import Keeper


def run(decoder: Decoder, ids: Array, keeper: Keeper, progress: Progress, state: Path | None = None) -> None:
    """A pass over ids [1, L] in one call, for the keeper's record.

    `state` is a file that holds the pass behind its last whole layer; a pass that finds one goes on from there.
    """
    for _ in steps(decoder, ids, keeper, progress, state):
        pass


def steps(
    decoder: Decoder, ids: Array, keeper: Keeper, progress: Progress, state: Path | None = None
) -> Iterator[None]:
    """`run`, with a halt behind every layer: several passes may take turns."""
    config = decoder.config
    positions, valid = np.arange(ids.shape[1], dtype=np.int32)[None], np.ones(ids.shape, bool)
    total = config.num_hidden_layers + 1
    progress(0, total, "embedding")
    h, layer_inputs = decoder.embed(ids, keeper)
    donors: dict[int, KeyValues] = {}
    first = 0
    if state is not None and state.exists():
        first, h, donors, keeper.kept = pickle.loads(state.read_bytes())  # our own file
    lent = {config.kv_donor(layer) for layer in range(config.num_hidden_layers) if config.is_kv_shared(layer)}
    for layer in range(first, config.num_hidden_layers):
        progress(layer, total, f"layer {layer}")
        h, attended = decoder.layer(
            layer,
            h,
            positions,
            valid,
            layer_input=None if layer_inputs is None else layer_inputs[:, :, layer],
            shared=donors[config.kv_donor(layer)] if config.is_kv_shared(layer) else None,
            record=keeper,
        )
        if layer in lent:
            donors[layer] = attended
        if state is not None:
            write_atomic(state, pickle.dumps((layer + 1, h, donors, keeper.kept)))
        yield
    progress(total - 1, total, "logits")
    decoder.unembed(h[:, list(keeper.rows)], keeper)
    progress(total, total, "done")
