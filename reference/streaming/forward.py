"""A forward pass layer by layer, which can stop after any layer and be continued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gemma4_contract.progress import Progress
from gemma4_contract.tensors import Array
from reference.oracle.decoder import Decoder, Halt
from reference.streaming.state import load, save
from reference.streaming.stored_taps import StoredTapRecorder


def run(
    decoder: Decoder, ids: Array, recorder: StoredTapRecorder, progress: Progress, state: Path | None = None
) -> None:
    """A pass over ids [1, L] in one call; `recorder` records the taps.

    `state` is a file with the pass after its last whole layer; if it exists, the pass continues from there.
    """
    for _ in layer_by_layer(decoder, ids, recorder, progress, state):
        pass


def layer_by_layer(
    decoder: Decoder, ids: Array, recorder: StoredTapRecorder, progress: Progress, state: Path | None = None
) -> Iterator[None]:
    """`run`, with a halt after every layer, so that several passes can take turns."""
    positions, valid = np.arange(ids.shape[1], dtype=np.int32)[None], np.ones(ids.shape, bool)
    layers = decoder.config.num_hidden_layers

    def begin(layer: int) -> None:
        progress(layer, layers + 1, f"layer {layer}" if layer < layers else "logits")

    progress(0, layers + 1, "embedding")
    h, layer_inputs = decoder.embed(ids, recorder)
    start = Halt(layers=0, h=h, donors={})
    if state is not None and state.exists():
        start, recorder.taps = load(state)
    h = start.h
    begin(start.layers)
    for halt in decoder.layers(start, layer_inputs, positions, valid, record=recorder):
        h = halt.h
        if state is not None:
            save(state, halt, recorder.taps)
        yield
        begin(halt.layers)
    decoder.unembed(h[:, list(recorder.rows)], recorder)
    progress(layers + 1, layers + 1, "done")
