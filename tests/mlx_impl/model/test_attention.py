"""Masks at their edges, and the attention core against plain float64."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_impl.model import attention
from tests.support.gemma4_small import rel_rms

W = 4


@pytest.mark.parametrize("length", [W - 1, W, W + 1, 2 * W + 3])
def test_window_counts_the_current_token(length: int) -> None:
    at = mx.arange(length)[None]
    mask = np.array(attention.attention_mask(at, at, None, W))
    assert mask.shape == (1, 1, length, length)
    want = [[k <= q and k >= q - W + 1 for k in range(length)] for q in range(length)]
    assert np.array_equal(mask[0, 0], want)
    assert mask[0, 0].sum(-1).tolist() == [min(q + 1, W) for q in range(length)]


def test_without_a_window_all_earlier_keys_are_seen() -> None:
    at = mx.arange(9)[None]
    assert np.array_equal(np.array(attention.attention_mask(at, at, None, None))[0, 0], np.tri(9, dtype=bool))


def test_mask_goes_by_position_and_not_by_column() -> None:
    ring = mx.array([[8, 9, 10, 3, 4, 5, 6, 7]])
    mask = np.array(attention.attention_mask(mx.array([[10]]), ring, None, 8))[0, 0, 0]
    assert mask.tolist() == [True] * 8
    assert np.array(attention.attention_mask(mx.array([[8]]), ring, None, W))[0, 0, 0].tolist() == [
        *(True, False, False),
        *(False, False, True, True, True),
    ]


def test_padding_hides_keys_in_its_row_alone() -> None:
    at = mx.array([[0, 0, 1], [0, 1, 2]])
    valid = mx.array([[False, True, True], [True, True, True]])
    mask = np.array(attention.attention_mask(at, at, valid, None))[:, 0]
    assert mask[0].tolist() == [[False, True, False], [False, True, False], [False, True, True]]
    assert np.array_equal(mask[1], np.tri(3, dtype=bool))


def test_a_mask_of_ones_changes_nothing() -> None:
    at = mx.arange(6)[None]
    ones = mx.ones((1, 6), dtype=mx.bool_)
    assert mx.array_equal(attention.attention_mask(at, at, ones, W), attention.attention_mask(at, at, None, W))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_core_against_float64(heads: int, kv_heads: int) -> None:
    rng = np.random.default_rng(heads * 10 + kv_heads)
    q, k, v = (rng.normal(size=(2, n, 7, 8)).astype(np.float32) * 2 for n in (heads, kv_heads, kv_heads))
    at = mx.arange(7)[None]
    mask = attention.attention_mask(mx.broadcast_to(at, (2, 7)), mx.broadcast_to(at, (2, 7)), None, W)
    probs = attention.attention_probs(mx.array(q), mx.array(k), mask)
    context = attention.attention_context(probs, mx.array(v))

    k64, v64 = (np.repeat(x, heads // kv_heads, axis=1).astype(np.float64) for x in (k, v))
    scores = np.where(np.array(mask), q @ k64.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    assert rel_rms(probs, weights) < 1e-6
    assert rel_rms(context, (weights @ v64).transpose(0, 2, 1, 3).reshape(2, 7, heads * 8)) < 1e-6


def test_a_row_without_keys_is_zero_and_the_others_do_not_notice() -> None:
    q = mx.array(np.random.default_rng(5).normal(size=(1, 2, 3, 8)).astype(np.float32))
    mask = mx.array([[[[False] * 3, [True, True, False], [True] * 3]]])
    probs = attention.attention_probs(q, q, mask)
    context = attention.attention_context(probs, q)
    assert np.array_equal(np.array(context)[0, 0], np.zeros(16))
    assert np.array_equal(np.array(probs)[0, :, 0], np.zeros((2, 3)))
    assert np.array(probs)[0, :, 1:].sum(-1) == pytest.approx(np.ones((2, 2)))


def test_scores_far_apart_do_not_overflow() -> None:
    q = mx.array([[[[1e4]]]])
    k = mx.array([[[[1e4], [-1e4]]]])
    probs = attention.attention_probs(q, k, mx.ones((1, 1, 1, 2), dtype=mx.bool_))
    context = attention.attention_context(probs, k)
    assert probs.tolist() == [[[[1.0, 0.0]]]]
    assert context.tolist() == [[[1e4]]]


def test_bf16_scores_are_not_rounded() -> None:
    # 16 and 16.0625 are one number in bf16 (step 0.125); float32 scores tell them apart.
    q = mx.array([[[[4.0, 0.25]]]]).astype(mx.bfloat16)
    k = mx.array([[[[4.0, 0.0], [4.0, 0.25]]]]).astype(mx.bfloat16)
    probs = attention.attention_probs(q, k, mx.ones((1, 1, 1, 2), dtype=mx.bool_))
    assert (probs[0, 0, 0, 1] / probs[0, 0, 0, 0]).item() == pytest.approx(np.exp(0.0625), rel=1e-6)
