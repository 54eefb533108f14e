"""The fast path against the plain one: the same logits, whatever the pass, the cache and the weights."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear

from mlx_impl import Decoder, MlxImplError, parse_config
from mlx_impl.checkpoint.load import load
from mlx_impl.fast.decoder import FusedDecoder
from mlx_impl.fast.joined import joined
from mlx_impl.fast.static_cache import BLOCK, StaticCache
from tests.support import gemma4_small as g
from tests.support import quantized_checkpoints as q

LENGTH = 30
PLANS = {
    "one pass": [LENGTH],
    "chunks": [7, 7, 7, 7, 2],
    "token by token": [1] * LENGTH,
    "mixed, past the window": [5, 1, 1, 11, 1, 1, 9, 1],
}


@functools.cache
def pair(kind: str) -> tuple[Decoder, FusedDecoder]:
    plain = g.small(kind)
    return plain, FusedDecoder(plain)


def passes(decoder: FusedDecoder, ids: mx.array, steps: Sequence[int]) -> mx.array:
    caches, parts = decoder.make_caches(), []
    for start, step in zip(itertools.accumulate([0, *steps]), steps, strict=False):
        parts.append(decoder(ids[:, start : start + step], caches))
    assert {cache.offset for cache in caches} == {sum(steps)}
    return mx.concatenate(parts, axis=1)


def close(got: mx.array, expected: mx.array) -> bool:
    assert got.shape == expected.shape
    return float(mx.abs(got - expected).max()) <= 1e-4 * float(mx.abs(expected).max())


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", g.SMALL)
def test_every_pass_gives_the_plain_decoders_logits(kind: str, plan: str) -> None:
    plain, fused = pair(kind)
    ids = mx.array(g.ids(1, LENGTH))
    assert close(passes(fused, ids, PLANS[plan]), plain(ids))


@pytest.mark.parametrize("steps", [[LENGTH], [12, 18], [29, 1]])
@pytest.mark.parametrize("kind", g.SMALL)
def test_the_last_row_alone_is_the_last_row(kind: str, steps: list[int]) -> None:
    plain, fused = pair(kind)
    ids = mx.array(g.ids(1, LENGTH))
    caches, start = fused.make_caches(), 0
    for step in steps:
        last = fused(ids[:, start : start + step], caches, last_only=True)
        start += step
    assert last.shape[1] == 1
    assert close(last, plain(ids)[:, -1:])
    more = mx.array(g.ids(1, LENGTH + 3)[:, LENGTH:])  # what was left in the caches is right as well
    whole = plain(mx.concatenate([ids, more], axis=1))
    assert close(fused(more, caches), whole[:, LENGTH:])


def test_buffers_grow_by_blocks() -> None:
    plain, fused = pair("31b")
    ids = mx.array(g.ids(1, BLOCK + 3))
    assert close(passes(fused, ids, [BLOCK - 2, 1, 1, 1, 1, 1]), plain(ids))
    caches = fused.make_caches()
    fused(ids[:, : BLOCK - 1], caches)
    widths = [{cache.arrays[0].shape[2] for cache in caches if cache.window is None}]
    for column in (BLOCK - 1, BLOCK):
        fused(ids[:, column : column + 1], caches)
        widths.append({cache.arrays[0].shape[2] for cache in caches if cache.window is None})
    assert widths == [{BLOCK}, {BLOCK}, {2 * BLOCK}]


@pytest.mark.parametrize("config", [q.E2B, q.MIXTURE], ids=["e2b", "mixture"])
def test_quantised_weights_give_the_same(config: dict[str, object], tmp_path: Path) -> None:
    q.write(tmp_path, config)
    plain = load(tmp_path)
    ids = mx.array(g.ids(1, 20) % 96)
    assert close(passes(FusedDecoder(plain), ids, [9, 1, 1, 9]), plain(ids))


def test_a_mapped_table_serves_as_well(tmp_path: Path) -> None:
    q.write(tmp_path, q.E2B)
    ids = mx.array(g.ids(1, 20) % 96)
    steps = [9, 1, 1, 9]
    resident, mapped = (passes(FusedDecoder(load(tmp_path, ple=ple)), ids, steps) for ple in ("resident", "mapped"))  # type: ignore[arg-type]
    assert mx.array_equal(resident, mapped)


@pytest.mark.parametrize("dtype", g.DTYPES)
def test_the_dtype_is_the_weights(dtype: str) -> None:
    if dtype != "float32":
        decoder = Decoder(parse_config(g.SMALL["e2b"]))
        decoder.load_weights([(name, mx.array(x).astype(g.DTYPES[dtype])) for name, x in g.weights(decoder).items()])
        fused = FusedDecoder(decoder)
        caches = fused.make_caches()
        assert fused(mx.array([[2, 3, 4]]), caches).dtype == g.DTYPES[dtype]
        assert fused(mx.array([[5]]), caches).dtype == g.DTYPES[dtype]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 2, 3)])
def test_other_than_one_sequence_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MlxImplError, match="ids: got shape"):
        pair("e2b")[1](mx.zeros(shape, dtype=mx.int32))


def linears(*outs: int) -> list[Linear]:
    return [Linear(64, out, bias=False) for out in outs]


def test_joined_matrices_are_one_product() -> None:
    x = mx.random.normal((2, 3, 64))
    modules = linears(32, 64, 96)
    packed = [QuantizedLinear.from_linear(module, 32, 8) for module in modules]
    mixed = [packed[0], QuantizedLinear.from_linear(modules[1], 32, 4), modules[2]]
    for group in (modules, packed, mixed, modules[:1], packed[:1]):
        expected = mx.concatenate([module(x) for module in group], axis=-1)
        assert close(joined(group)(x), expected)
        assert close(mx.concatenate([module(x) for module in group], axis=-1), expected)  # they serve on as parts


@pytest.mark.parametrize("window", [None, 4, 8])
@pytest.mark.parametrize("steps", [[3, 3, 3], [9], [1, 8], [20, 1, 1], [2, 13, 5]])
def test_a_pass_attends_to_what_its_window_holds(window: int | None, steps: list[int]) -> None:
    cache, seen = StaticCache(window), 0
    for step in steps:
        k = mx.arange(seen, seen + step).astype(mx.float32).reshape(1, 1, step, 1)
        keys, values = mx.split(cache.extend(mx.concatenate([k, -k], axis=1)), 2, axis=1)
        first = 0 if window is None else max(0, seen - (window - 1))
        assert keys.reshape(-1).tolist() == list(range(first, seen + step))
        assert mx.array_equal(values, -keys)
        seen += step
    assert cache.offset == seen
    assert len(cache.arrays) == 1


def test_the_fast_path_holds_no_weight_twice() -> None:
    plain = Decoder(parse_config(g.SMALL["31b"] | {"intermediate_size": 1 << 16}))
    mx.eval(plain.parameters())
    ids = mx.array(g.ids(1, 5))
    expected = plain(ids)
    mx.eval(expected)
    mx.clear_cache()
    before = mx.get_active_memory()
    fused = FusedDecoder(plain)
    mx.eval(plain.parameters())
    mx.clear_cache()
    assert mx.get_active_memory() - before < 0.01 * before
    assert close(fused(ids), expected)
    assert mx.array_equal(plain(ids), expected)
