"""Each function of the oracle against values worked out by hand, and the promises of its arithmetics."""

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from gemma4_contract.tensors import Array
from reference import weights
from reference.cases import Draft, modules, smoke
from reference.config import Rope
from reference.oracle import answers, kv_cache
from reference.oracle.arithmetic import BF16, BF16_EVERY_OP, F16, F32, F64, PROFILES, Arithmetic
from reference.oracle.ops import Ops
from reference.oracle.summation import ORDERS
from tests.support import naive

ROPE_DEFAULT = Rope(rope_theta=1e4, rope_type="default", partial_rotary_factor=1.0)
ROPE_PROPORTIONAL = Rope(rope_theta=1e6, rope_type="proportional", partial_rotary_factor=0.25)
OPS = Ops(F64)
ALL = (F64, F32, BF16, F16, BF16_EVERY_OP)

each_arithmetic = pytest.mark.parametrize("ar", ALL, ids=lambda ar: ar.name)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def close(got: Any, expected: Any, tolerance: float = 1e-14) -> bool:
    return np.asarray(got).shape == np.asarray(expected).shape and bool(
        np.allclose(got, expected, rtol=tolerance, atol=tolerance)
    )


# --- norm


def test_norm_has_eps_inside_the_root_and_the_weight_as_it_stands() -> None:
    x = np.array([[3.0, 4.0], [0.003, 0.004]])
    assert close(OPS.rms_norm(x[:1], None, 0.0), [[3 / math.sqrt(12.5), 4 / math.sqrt(12.5)]])
    root = math.sqrt(12.5e-6 + 1e-5)
    weighted = OPS.rms_norm(x, np.array([2.0, -0.5]), 1e-5)
    assert close(weighted[1], [2 * 0.003 / root, -0.5 * 0.004 / root])
    assert not OPS.rms_norm(np.zeros((1, 4)), None, 1e-6).any()


def test_norm_is_wide_in_bf16_and_narrow_in_every_op() -> None:
    x, weight = weights.bf16(random(40, 64)), weights.bf16(1 + random(64, seed=1) / 4)
    truth = OPS.rms_norm(x, weight, 1e-6)

    def error(ar: Arithmetic) -> float:
        got = Ops(ar).rms_norm(ar.cast(x), ar.cast(weight), 1e-6).astype(np.float64)
        return float(np.abs(got / truth - 1).max())

    assert error(BF16) <= 2.0**-8 * 1.001  # one rounding, at the end
    assert error(BF16_EVERY_OP) > 2.0**-8 * 1.2


# --- RoPE


def test_default_frequencies_and_rotation_by_hand() -> None:
    frequencies = OPS.inverse_frequencies(4, ROPE_DEFAULT)
    assert close(frequencies, [1.0, 0.01])
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    turned = OPS.rope(x, np.array([[5]]), frequencies).reshape(-1)
    (c, s), (c2, s2) = ((math.cos(a), math.sin(a)) for a in (5.0, 0.05))
    assert close(turned, [1 * c - 3 * s, 2 * c2 - 4 * s2, 3 * c + 1 * s, 4 * c2 + 2 * s2])  # pairs (0, 2) and (1, 3)
    assert np.array_equal(OPS.rope(x, np.array([[0]]), frequencies), x)


def test_proportional_frequencies_divide_by_the_head_dim_and_end_in_zeros() -> None:
    frequencies = OPS.inverse_frequencies(512, ROPE_PROPORTIONAL)
    assert close(frequencies[:64], [1e6 ** (-2 * j / 512) for j in range(64)])
    assert frequencies[64:].tolist() == [0.0] * 192
    x = random(1, 1, 1, 512)
    turned = OPS.rope(x, np.array([[1000]]), frequencies)
    still = [*range(64, 256), *range(256 + 64, 512)]
    assert np.array_equal(turned[..., still], x[..., still])
    assert (turned[..., [*range(64), *range(256, 320)]] != x[..., [*range(64), *range(256, 320)]]).all()
    uncut = Rope(rope_theta=1e6, rope_type="proportional", partial_rotary_factor=1.0)
    assert (OPS.inverse_frequencies(512, uncut) > 0).all()


def test_each_row_of_a_batch_turns_by_its_own_positions() -> None:
    raw = {"rope_type": "default", "rope_theta": 1e4}
    frequencies = OPS.inverse_frequencies(8, ROPE_DEFAULT)
    x, positions = random(2, 3, 4, 8), np.array([[0, 1, 2, 3], [0, 0, 700, 131071]])
    turned = OPS.rope(x, positions, frequencies)
    for row in range(2):
        assert close(turned[row : row + 1], naive.rotate(x[row : row + 1], positions[row].tolist(), raw), 1e-12)


@each_arithmetic
def test_angles_are_never_narrower_than_float32(ar: Arithmetic) -> None:
    frequencies = Ops(ar).inverse_frequencies(8, ROPE_DEFAULT)
    assert frequencies.dtype == (np.float64 if ar is F64 else np.float32)
    x = ar.cast(np.array([1.0, 0, 0, 0, 0, 0, 0, 0]).reshape(1, 1, 1, 8))
    turned = Ops(ar).rope(x, np.array([[4097]], np.int32), frequencies)  # bf16 would make 4096 of it, f16 4096 too
    assert turned.dtype == ar.dtype
    assert abs(float(turned[0, 0, 0, 0]) - math.cos(4097)) < 0.005 < abs(math.cos(4096) - math.cos(4097))


# --- attention


def test_mask_edges() -> None:
    positions = np.arange(5)[None]
    seen = OPS.attention_mask(positions, positions, np.ones((1, 5)), 3)[0].astype(int)
    assert seen.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    causal = OPS.attention_mask(positions, positions, np.ones((1, 5)), None)[0]
    assert np.array_equal(causal, np.tril(np.ones((5, 5), bool)))
    for window in (3, 4, 5, 6):  # the query at 5 sees key 1, four positions back, from a window of 5 on
        assert OPS.attention_mask(np.array([[5]]), np.array([[1]]), np.ones((1, 1)), window).item() == (window >= 5)


def test_mask_goes_by_position_not_by_place_and_leaves_out_pads() -> None:
    keys = np.array([[8, 9, 10, 3, 4, 0]])
    valid = np.array([[1, 1, 1, 1, 1, 0]], np.uint8)
    seen = OPS.attention_mask(np.array([[9]]), keys, valid, 6)
    assert seen.dtype == bool
    assert seen[0, 0].tolist() == [True, True, False, False, True, False]
    unlimited = OPS.attention_mask(np.array([[9]]), keys, valid, None)
    assert unlimited[0, 0].tolist() == [True, True, False, True, True, False]  # a pad stands at position 0


@each_arithmetic
def test_softmax_of_a_fully_masked_row_is_zero_and_large_scores_do_not_overflow(ar: Arithmetic) -> None:
    scores = ar.cast([[1.0, 2.0, 3.0], [30000.0, 29999.0, -30000.0], [5.0, 5.0, 5.0]])
    mask = np.array([[False] * 3, [True] * 3, [True, False, True]])
    got = Ops(ar).softmax(scores, mask)
    assert got.dtype == ar.wide
    assert got[0].tolist() == [0.0, 0.0, 0.0]
    assert float(got[1].astype(np.float64).sum()) == pytest.approx(1, abs=0.01)
    assert got[2].tolist() == [0.5, 0.0, 0.5]


def test_softmax_by_hand() -> None:
    got = OPS.softmax(np.log([[1.0, 2.0, 5.0]]))
    assert close(got, [[1 / 8, 2 / 8, 5 / 8]])


def test_query_heads_read_key_heads_in_groups_at_scale_one() -> None:
    q, k, v = random(2, 6, 3, 4), random(2, 2, 5, 4, seed=1), random(2, 2, 5, 4, seed=2)
    mask = np.tile(np.arange(5) < 4, (2, 3, 1))
    probs = OPS.attention_probs(q, k, mask)
    got = OPS.attention_context(probs, v)
    assert probs.shape == (2, 6, 3, 5)
    assert not probs[..., 4].any()
    for b, h, i in np.ndindex(2, 6, 3):
        exps = [math.exp(naive.dot(q[b, h, i], k[b, h // 3, j])) for j in range(4)]
        expected = sum(e * v[b, h // 3, j] for j, e in enumerate(exps)) / sum(exps)
        assert close(got[b, i, 4 * h : 4 * h + 4], expected, 1e-12)
        assert close(probs[b, h, i, :4], np.array(exps) / sum(exps), 1e-12)


def test_cache_appends_per_layer_and_hands_out_everything() -> None:
    def new(fill: float, position: int) -> kv_cache.KeyValues:
        tensor = np.full((1, 2, 1, 4), fill)
        return kv_cache.KeyValues(
            keys=tensor, values=-tensor, positions=np.array([[position]]), valid=np.array([[position > 0]])
        )

    cache = kv_cache.KVCache()
    first = cache.update(3, new(1.0, 0))
    cache.update(4, new(9.0, 0))
    both = cache.update(3, new(2.0, 1))
    assert first.keys.shape == (1, 2, 1, 4)
    assert both.keys[0, 1, :, 0].tolist() == [1.0, 2.0]
    assert both.values[0, 1, :, 0].tolist() == [-1.0, -2.0]
    assert both.positions.tolist() == [[0, 1]]
    assert both.valid.tolist() == [[False, True]]


# --- embeddings


def test_embedding_scale_is_rounded_to_the_storage_dtype() -> None:
    roots = {1536: 39.25, 2560: 50.5, 2816: 53.0, 3840: 62.0, 5376: 73.5}  # what bf16 makes of sqrt(D)
    for width, rounded in roots.items():
        table = np.ones((2, width))
        assert float(Ops(BF16).embedding(np.array([[1]]), BF16.cast(table))[0, 0, 0]) == rounded
        assert float(OPS.embedding(np.array([[1]]), table)[0, 0, 0]) == math.sqrt(width)
        assert Ops(F32).embedding(np.array([[1]]), F32.cast(table))[0, 0, 0] == np.float32(math.sqrt(width))


def test_per_layer_inputs_by_hand() -> None:
    layers, width, hidden = 3, 2, 5
    ids, h = np.array([[2, 0]]), random(1, 2, hidden)
    table, projection, weight = random(4, 6, seed=1), random(6, hidden, seed=2), random(width, seed=3)
    taps: dict[str, Array] = {}
    combined = OPS.per_layer_inputs(
        ids, h, table, projection, weight, eps=1e-3, num_layers=layers, record=Recording(taps=taps)
    )
    for i, token in enumerate(ids[0]):
        for layer in range(layers):
            part = slice(2 * layer, 2 * layer + 2)
            rows = table[token, part] * math.sqrt(2)
            projected = np.array([naive.dot(h[0, i], w) for w in projection[part]]) / math.sqrt(5)
            normed = projected / math.sqrt(naive.dot(projected, projected) / 2 + 1e-3) * weight
            assert close(taps["model.embed_tokens_per_layer"][0, i, layer], rows)
            assert close(taps["model.per_layer_projection_norm"][0, i, layer], normed)
            assert close(combined[0, i, layer], (rows + normed) / math.sqrt(2))
    assert combined is taps["model.ple"]
    gate = OPS.per_layer_gate(h, combined[:, :, 1], projection[:2])
    expected = naive.gated(naive.linear(h, projection[:2]), combined[:, :, 1])
    assert close(gate, expected)


def test_offset_into_the_per_layer_table_passes_32_bits() -> None:
    params = {"num_layers": 35, "width": 256, "id": 262143, "layer": 34, "channel": 255}
    last = answers.module("ple_index", params, {}, F64)["offset"].tobytes()
    assert last == b"2348810239"  # 262144 * 35 * 256 - 1
    inner = answers.module("ple_index", params | {"id": 2, "layer": 3, "channel": 5}, {}, F64)["offset"].tobytes()
    assert inner == b"18693"  # (2 * 35 + 3) * 256 + 5


# --- feed forward, experts, logits


def test_gelu_is_the_tanh_form() -> None:
    x = np.array([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0])
    assert close(OPS.gelu_tanh(x), [naive.gelu(v) for v in x])
    assert float(OPS.gelu_tanh(np.array(1.0))) == pytest.approx(0.841192, abs=5e-7)  # erf gives 0.841345
    activation = OPS.activation(np.array([[1.0, 2.0]]), np.array([[0.5, 0.25]]), np.array([[3.0, -1.0]]))
    assert close(activation, [[naive.gelu(1.0) * 1.0]])


def test_softcap_by_hand() -> None:
    got = OPS.softcap(np.array([0.0, 15.0, -60.0]), 30.0)
    assert close(got, [0.0, 30 * math.tanh(0.5), -30 * math.tanh(2.0)])


def test_router_logits_come_from_the_raw_residual() -> None:
    h, scale, proj = random(1, 3, 6), random(6, seed=1), random(4, 6, seed=2)
    assert close(OPS.router_logits(h, scale, proj, 1e-3), naive.router_logits(h, scale, proj, 1e-3), 1e-13)


@each_arithmetic
def test_weights_of_the_chosen_experts_sum_to_one_before_their_scales(ar: Arithmetic) -> None:
    scores = ar.cast(random(2, 5, 8))
    plain = Ops(ar).combine_weights(scores, ar.cast(np.ones(8)), 3)
    assert plain.dtype == ar.dtype
    assert ((plain != 0).sum(-1) == 3).all()
    assert close(plain.astype(np.float64).sum(-1), np.ones((2, 5)), 1e-14 if ar is F64 else 0.02)
    scales = weights.bf16(0.5 + np.arange(8) / 4)
    scaled = Ops(ar).combine_weights(scores, ar.cast(scales), 3)
    assert np.array_equal(scaled, plain * ar.cast(scales))
    if ar is F64:
        assert close(scaled, naive.combine(scores, scales, 3))


def test_ties_take_the_lower_index() -> None:
    scores = np.array([[[1.0, 2.0, 2.0, 1.0, 1.0, 0.0]]])
    chosen = OPS.combine_weights(scores, np.ones(6), 3)[0, 0] != 0
    assert chosen.tolist() == [True, True, True, False, False, False]


def test_experts_add_up_and_the_gate_is_the_first_half() -> None:
    x, gate_up, down = random(1, 4, 6), random(5, 4, 6, seed=1), random(5, 6, 2, seed=2)
    combine = OPS.combine_weights(random(1, 4, 5, seed=3), np.arange(1.0, 6.0), 2)
    assert close(OPS.experts(x, combine, gate_up, down), naive.experts(x, combine, gate_up, down), 1e-13)


# --- arithmetics


def bits(x: Array) -> bytes:
    return np.ascontiguousarray(x).tobytes()


def ordered(order: str, dtype: np.dtype[Any] = F32.dtype) -> Arithmetic:
    return Arithmetic(name=order, dtype=dtype, wide=F32.wide, accumulate=F32.accumulate, order=order)


def loop(terms: Array) -> np.float32:
    total = np.float32(0)
    for term in terms:
        total = np.float32(total + term)
    return total


def test_orders_sum_as_they_say() -> None:
    x = random(3, 257).astype(np.float32)
    sums = {order: ordered(order).sum(x) for order in ORDERS}
    assert all(value.shape == (3, 1) and value.dtype == np.float32 for value in sums.values())
    assert sums["sequential"][:, 0].tolist() == [loop(row) for row in x]
    assert sums["reversed"][:, 0].tolist() == [loop(row[::-1]) for row in x]
    halves = [x[:, ::2].sum(-1, keepdims=True), x[:, 1::2].sum(-1, keepdims=True)]
    assert bits(sums["split"]) == bits(halves[0] + halves[1])
    assert len({bits(value) for value in sums.values()}) == 4
    assert all(close(value, x.astype(np.float64).sum(-1, keepdims=True), 1e-5) for value in sums.values())
    assert np.array_equal(ordered("sequential").sum(x.T, axis=0), sums["sequential"].T)


def test_products_sum_in_the_same_orders() -> None:
    a, b = random(2, 3, 65).astype(np.float32), random(2, 65, 4, seed=1).astype(np.float32)
    products = {order: ordered(order).matmul(a, b) for order in ORDERS}
    for n, i, o in np.ndindex(2, 3, 4):
        terms = a[n, i] * b[n, :, o]
        assert products["sequential"][n, i, o] == loop(terms)
        assert products["reversed"][n, i, o] == loop(terms[::-1])
    assert len({bits(value) for value in products.values()}) == 4
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert all(close(value, exact, 1e-5) for value in products.values())


def test_products_accumulate_wide_and_round_once() -> None:
    # 256 + 1 is no bf16 number: a bf16 accumulator would stay at 256.
    ones, column = BF16.cast(np.ones((1, 512))), BF16.cast(np.ones((512, 1)))
    for order in ORDERS:
        ar = ordered(order, BF16.dtype)
        assert ar.matmul(ones, column).dtype == ml_dtypes.bfloat16
        assert float(ar.matmul(ones, column)[0, 0]) == float(ar.sum(ones)[0, 0]) == 512.0


def test_linear_multiplies_by_the_transpose_whatever_the_leading_axes() -> None:
    x, weight = random(2, 3, 4), random(5, 4, seed=1)
    for order in ORDERS:
        ar = Arithmetic(name=order, dtype=F64.dtype, wide=F64.wide, accumulate=F64.accumulate, order=order)
        assert close(ar.linear(x, weight), naive.linear(x, weight))


def module_drafts() -> Iterator[Draft]:
    return (draft for draft in (*smoke.drafts(), *modules.drafts()) if draft.exact_in is None)


@pytest.mark.parametrize("ar", PROFILES.values(), ids=PROFILES.keys())
def test_answers_to_module_cases_have_the_profiles_dtype(ar: Arithmetic) -> None:
    kinds = set()
    for draft in module_drafts():
        if draft.profiles and ar.name not in draft.profiles:
            continue
        quiet = "ignore" if draft.advice else "warn"  # float16 overflows there on purpose
        with np.errstate(over=quiet, invalid=quiet):
            taps = answers.module(draft.kind, draft.params, draft.inputs, ar)
        own = {"inv_freq": np.dtype(np.float64 if ar is F64 else np.float32), "donors": np.dtype(np.int32)}
        own |= {"offset": np.dtype(np.uint8), "mask": np.dtype(np.uint8)}
        own |= {name: np.dtype(np.int32) for name in ("ids", "sum", "q")}
        assert list(taps) == [tap.name for tap in draft.taps], draft.id
        for name, value in taps.items():
            assert value.dtype == own.get(name, ar.dtype), (draft.id, name)
            assert np.isfinite(value.astype(np.float64)).all() or draft.advice, (draft.id, name)
        kinds.add(draft.kind)
    assert kinds == set(answers.MODULE_KINDS) - (set() if ar in (F64, F32) else {"embedding"})
