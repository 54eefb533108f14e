"""However a prompt is fed, the answer is the same; and each cache keeps just what it must."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from mlx_impl import Decoder, MlxImplError, parse_config
from mlx_impl.model import kv_cache
from mlx_impl.model.kv_cache import FullKVCache, RotatingKVCache
from tests.support import gemma4_small as g

LENGTH = 21  # more than two windows of 8
TOLERANCE = 3e-6  # other shapes, other summation orders
PLANS = {
    "one shot": [21],
    "chunks": [5, 5, 5, 6],
    "prefill at the window": [8, 1, 12],
    "past the window, then decode": [13, *[1] * 8],
    "token by token": [1] * 21,
}


def feed(
    model: Decoder,
    ids: np.ndarray,
    steps: list[int],
    positions: np.ndarray | None = None,
    valid: np.ndarray | None = None,
) -> mx.array:
    """Logits of all rows, fed in steps through one set of caches."""
    caches, rows, start = model.make_caches(), [], 0
    for step in steps:
        part = slice(start, start + step)
        at = None if positions is None else mx.array(positions[:, part])
        real = None if valid is None else mx.array(valid[:, part])
        rows.append(model(mx.array(ids[:, part]), positions=at, valid=real, caches=caches))
        start += step
    assert start == ids.shape[1]
    assert {cache.offset for cache in caches} == {start}
    return mx.concatenate(rows, axis=1)


@pytest.mark.parametrize("kind", g.SMALL)
@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_equals_no_cache(kind: str, plan: str) -> None:
    model, ids = g.small(kind), g.ids(2, LENGTH)
    assert g.rel_rms(feed(model, ids, PLANS[plan]), model(mx.array(ids))) < TOLERANCE


@pytest.mark.parametrize("kind", g.SMALL)
@pytest.mark.parametrize("steps", [[24], [5, 5, 5, 9], [1] * 24])
def test_left_padded_rows_equal_the_rows_alone(kind: str, steps: list[int]) -> None:
    model, pads = g.small(kind), [0, 3, 11]
    ids, positions, valid = (np.zeros((3, 24), dtype=np.int32) for _ in range(3))
    rows = [g.ids(1, 24 - pad, seed=pad) for pad in pads]
    for row, pad in enumerate(pads):
        ids[row, pad:], positions[row, pad:], valid[row, pad:] = rows[row], np.arange(24 - pad), 1
    got = feed(model, ids, steps, positions, valid.astype(bool))
    assert bool(mx.all(mx.isfinite(got)).item())  # pad rows included
    for row, pad in enumerate(pads):
        assert g.rel_rms(got[row : row + 1, pad:], model(mx.array(rows[row]))) < TOLERANCE


def test_decoding_a_padded_batch_needs_no_more_masks() -> None:
    model, ids = g.small("e2b"), g.ids(2, 12)
    valid = np.array([[True] * 10, [False] * 4 + [True] * 6])
    positions = np.maximum(np.cumsum(valid, axis=1) - 1, 0).astype(np.int32)
    caches = model.make_caches()
    model(mx.array(ids[:, :10]), positions=mx.array(positions), valid=mx.array(valid), caches=caches)
    got = model(mx.array(ids[:, 10:]), positions=mx.array([[10, 11], [6, 7]]), caches=caches)
    assert g.rel_rms(got[1:], model(mx.array(ids[1:, 4:]))[:, -2:]) < TOLERANCE


def test_an_all_ones_mask_equals_no_mask() -> None:
    model, ids = g.small("31b"), mx.array(g.ids(1, LENGTH))
    got = model(ids, positions=mx.arange(LENGTH)[None], valid=mx.ones((1, LENGTH), dtype=mx.bool_))
    assert mx.array_equal(got, model(ids))


@pytest.mark.parametrize("kind", g.SMALL)
def test_the_future_does_not_leak(kind: str) -> None:
    model, ids = g.small(kind), g.ids(1, LENGTH)
    changed = ids.copy()
    changed[0, 15] = ids[0, 15] % 60 + 1
    before, after = model(mx.array(ids)), model(mx.array(changed))
    assert mx.array_equal(before[:, :15], after[:, :15])
    assert g.rel_rms(after[:, 15:], before[:, 15:]) > 1e-2


def arrays(length: int, start: int = 0) -> tuple[mx.array, mx.array, mx.array]:
    """Keys [1, 1, L, 2] that hold their own positions, values that hold the negated ones, and positions [1, L]."""
    at = mx.arange(start, start + length)[None]
    k = mx.broadcast_to(at[:, None, :, None].astype(mx.float32), (1, 1, length, 2))
    return k, -k, at


def held(kv: kv_cache.KV) -> list[int]:
    """The positions of a KV, having made sure that keys and values belong to them."""
    assert mx.array_equal(kv.keys[0, 0, :, 0], kv.positions[0].astype(mx.float32))
    assert mx.array_equal(kv.values, -kv.keys)
    return [int(p) for p in np.array(kv.positions)[0]]


def test_rotating_cache_gives_retained_and_new() -> None:
    cache = RotatingKVCache(4)
    assert held(cache.update(*arrays(6), None)) == [0, 1, 2, 3, 4, 5]  # a pass sees all its own keys
    assert held(cache.update(*arrays(1, 6), None)) == [3, 4, 5, 6]  # then the window: 3 kept + 1 new
    assert held(cache.update(*arrays(3, 7), None)) == [4, 5, 6, 7, 8, 9]
    assert held(cache.update(*arrays(1, 10), None)) == [7, 8, 9, 10]
    assert cache.offset == 11


def test_rotating_cache_shorter_than_its_window_keeps_all() -> None:
    cache = RotatingKVCache(8)
    cache.update(*arrays(3), None)
    assert held(cache.update(*arrays(2, 3), None)) == [0, 1, 2, 3, 4]


def test_window_of_one_keeps_nothing() -> None:
    cache = RotatingKVCache(1)
    cache.update(*arrays(3), None)
    assert held(cache.update(*arrays(1, 3), None)) == [3]


def test_full_cache_keeps_all() -> None:
    cache = FullKVCache()
    assert cache.arrays == []
    cache.update(*arrays(6), None)
    assert held(cache.update(*arrays(2, 6), None)) == list(range(8))
    assert [a.shape[-2:] for a in cache.arrays] == [(8, 2), (8, 2), (1, 8)]


@pytest.mark.parametrize("make", [FullKVCache, lambda: RotatingKVCache(8)])
def test_validity_travels_with_its_columns(make: type[FullKVCache]) -> None:
    cache = make()
    cache.update(*arrays(2), mx.array([[False, True]]))
    assert cache.padded
    later = cache.update(*arrays(1, 2), None)
    assert later.valid is not None
    assert later.valid.tolist() == [[False, True, True]]


def test_an_earlier_kv_does_not_change_under_its_reader() -> None:
    cache = FullKVCache()
    first = cache.update(*arrays(2), None)
    cache.update(*arrays(2, 2), None)
    assert held(first) == [0, 1]


def test_only_own_kv_layers_have_caches() -> None:
    caches = kv_cache.make_caches(parse_config(g.SMALL["e2b"]))
    assert [type(c).__name__ for c in caches] == [
        *("RotatingKVCache", "RotatingKVCache", "FullKVCache", "RotatingKVCache", "FullKVCache")
    ]
    assert len(kv_cache.make_caches(parse_config(g.FAMILY["e2b"]))) == 15
    assert len(kv_cache.make_caches(parse_config(g.FAMILY["31b"]))) == 60


def test_sliding_caches_stay_small() -> None:
    model = g.small("e2b")
    caches = model.make_caches()
    model(mx.array(g.ids(1, LENGTH)), caches=caches)
    assert [cache.arrays[0].shape[2] for cache in caches] == [7, 7, LENGTH, 7, LENGTH]


@pytest.mark.parametrize("kind", g.SMALL)
def test_shared_layers_attend_to_what_their_donor_attended_to(kind: str) -> None:
    model = g.small(kind)
    caches = model.make_caches()
    model(mx.array(g.ids(1, 13)), caches=caches)
    seen: dict[str, mx.array] = {}
    model(mx.array(g.ids(1, 4, seed=1)), caches=caches, tap=Recording(taps=seen))
    for i, donor in enumerate(model.config.kv_donors()):
        columns = seen[f"model.layers.{i}.self_attn.probs"].shape[-1]
        assert columns == seen[f"model.layers.{donor}.self_attn.probs"].shape[-1]
        assert columns == (7 + 4 if model.config.is_sliding(i) else 13 + 4)


def refusal(**arguments: Any) -> str:
    """The message with which a small E2B refuses a call."""
    model = g.small("e2b")
    with pytest.raises(MlxImplError) as caught:
        model(**({"ids": mx.array(g.ids(2, 4))} | arguments))
    return str(caught.value)


def test_calls_that_do_not_fit_are_refused() -> None:
    assert "ids: got shape (4,)" in refusal(ids=mx.array([1, 2, 3, 4]))
    assert "positions: got shape (1, 4)" in refusal(positions=mx.arange(4)[None])
    assert "valid: got shape (2, 3)" in refusal(valid=mx.ones((2, 3), dtype=mx.bool_))
    assert "positions: got none for a padded batch" in refusal(valid=mx.ones((2, 4), dtype=mx.bool_))
    assert "caches: got 8; expected 5" in refusal(caches=[FullKVCache() for _ in range(8)])
    uneven = g.small("e2b").make_caches()
    uneven[0].update(*arrays(2), None)
    assert "caches: got offsets [0, 2]" in refusal(caches=uneven)


def test_positions_are_wanted_after_a_padded_prefill() -> None:
    model = g.small("e2b")
    caches = model.make_caches()
    valid = mx.array([[False, True]])
    model(mx.array([[0, 5]]), positions=mx.array([[0, 0]]), valid=valid, caches=caches)
    with pytest.raises(MlxImplError, match="positions: got none for a padded batch"):
        model(mx.array([[6]]), caches=caches)


def test_a_layer_says_what_it_misses() -> None:
    model = g.small("e2b")
    h, at, freq = mx.zeros((1, 2, 24)), mx.arange(2)[None], mx.ones((4,))
    with pytest.raises(MlxImplError, match="layer 5: got no donor KV; expected the KV of layer 3"):
        model.model.layers[5](h, at, freq)
    with pytest.raises(MlxImplError, match="layer 0: got no per-layer input"):
        model.model.layers[0](h, at, freq)
