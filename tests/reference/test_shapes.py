"""Every recorded tap has the shape that the graph's axes and the sizes of the configuration give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest

from gemma4_contract import Fixtures
from gemma4_contract.expand import size_of, sizes, taps
from gemma4_contract.graph import text_graph
from gemma4_contract.recording import Recording
from gemma4_contract.tensors import Array
from reference.cases.forward import golden_ids
from reference.export.checkpoint import model_weights
from reference.models import MODELS, Model
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KVCache
from reference.oracle.ops import Ops

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
BATCH, CACHED, LENGTH = 5, 6, 7
"""Rows of the batch, tokens of a first call, which are in the cache, and tokens of the call that is recorded."""

Shapes = Mapping[str, tuple[int, ...]]


def wrong_shapes(model: Model, shapes: Shapes, keys: int) -> list[str]:
    """The taps whose shape is wrong, or that are missing or unknown; `keys` is S, the keys that a query may see."""
    graph, expected = text_graph(), {}
    for tap in taps(graph, model.config):
        letters = sizes(model.config, graph.layer_of(tap.name)) | {"B": BATCH, "L": LENGTH, "S": keys}
        expected[tap.name] = tuple(size_of(axis, letters) for axis in tap.axes)
    return sorted(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))


def token_ids(model: Model, length: int) -> Array:
    """Ids [BATCH, length]."""
    return np.tile(golden_ids(model, 0)[:, :length], (BATCH, 1))


def positions(start: int, stop: int) -> Array:
    """Positions [BATCH, stop - start]."""
    return np.tile(np.arange(start, stop, dtype=np.int32), (BATCH, 1))


def oracle_shapes(model: Model, ops: type[Ops] = Ops) -> Shapes:
    """The shapes of the taps of the oracle's second call, which attends to CACHED + LENGTH keys."""
    decoder, kv_cache = Decoder(model.config, model_weights(model), ops=ops), KVCache()
    recording: Recording[Array] = Recording()
    ids = token_ids(model, CACHED + LENGTH)
    decoder.forward(ids[:, :CACHED], positions(0, CACHED), cache=kv_cache)
    decoder.forward(ids[:, CACHED:], positions(CACHED, CACHED + LENGTH), cache=kv_cache, record=recording)
    return {name: value.shape for name, value in recording.taps.items()}


@cache
def recorded(model_id: str) -> Shapes:
    return oracle_shapes(MODELS[model_id])


@each_model
def test_the_oracle_s_taps_have_the_shapes_of_the_graph(model: Model) -> None:
    assert wrong_shapes(model, recorded(model.id), CACHED + LENGTH) == []


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model.nested], ids=lambda model: model.id)
def test_mlx_impl_s_taps_have_the_shapes_of_the_graph(model: Model) -> None:
    """In one call without a cache, in which S = L."""
    mx = pytest.importorskip("mlx.core")
    import mlx_impl

    decoder, recording = mlx_impl.load(Fixtures().model_dir(model.id)), Recording()
    decoder(mx.array(token_ids(model, LENGTH)), mx.array(positions(0, LENGTH)), tap=recording)
    shapes = {name: tuple(value.shape) for name, value in recording.taps.items()}
    assert wrong_shapes(model, shapes, LENGTH) == []


@each_model
def test_a_wrong_shape_of_any_tap_is_seen(model: Model) -> None:
    """On every axis one entry too many, two axes exchanged, and one axis too few."""
    changes: list[Callable[[tuple[int, ...]], tuple[int, ...]]] = [
        lambda shape: shape[1:],
        *(lambda shape, axis=axis: (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :]) for axis in range(3)),
        lambda shape: (shape[1], shape[0], *shape[2:]),
    ]
    right = recorded(model.id)
    for change in changes:
        wrong = {name: change(shape) for name, shape in right.items()}
        assert wrong_shapes(model, wrong, CACHED + LENGTH) == sorted(right)
    assert wrong_shapes(model, {}, CACHED + LENGTH) == sorted(right)
    assert wrong_shapes(model, {**right, "model.layers.0.other": (1,)}, CACHED + LENGTH) == ["model.layers.0.other"]


def test_a_wrong_shape_that_the_oracle_makes_is_seen() -> None:
    class SpareAxis(Ops):
        """Gives the logits an axis of length 1 too many."""

        def softcap(self, x: Array, cap: float) -> Array:
            return super().softcap(x, cap)[:, :, None]

    model = MODELS["e2b-mini"]
    assert wrong_shapes(model, oracle_shapes(model, SpareAxis), CACHED + LENGTH) == ["logits"]
