"""Router and experts against a plain float64 loop over all experts."""

import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from mlx_impl.model import moe
from mlx_impl.model.taps import Tap, unwatched
from tests.support import gemma4_small as g

X, TOP_K, D, F = 7, 3, 12, 5
RNG = np.random.default_rng(40)
H, SCALE, PROJ = RNG.normal(size=(2, 4, D)), RNG.uniform(2, 6, D), RNG.normal(size=(X, D))
PER_EXPERT = RNG.uniform(0.3, 3.0, X)
GATE_UP, DOWN = RNG.normal(size=(X, 2 * F, D)), RNG.normal(size=(X, D, F))


def mlx(value: np.ndarray) -> mx.array:
    return mx.array(value.astype(np.float32))


def route(tap: Tap = unwatched) -> tuple[mx.array, mx.array]:
    return moe.route(mlx(H), mlx(SCALE), mlx(PROJ), mlx(PER_EXPERT), TOP_K, 1e-6, tap)


def combine_in_float64() -> np.ndarray:
    """The dense weights [B, L, X], token by token."""
    out = np.zeros((2, 4, X))
    for at in np.ndindex(2, 4):
        x = H[at] / np.sqrt((H[at] ** 2).mean() + 1e-6) * SCALE / np.sqrt(D)
        p = np.exp(PROJ @ x)
        p /= p.sum()
        chosen = np.argsort(-p)[:TOP_K]
        out[at][chosen] = p[chosen] / p[chosen].sum() * PER_EXPERT[chosen]
    return out


def test_route_and_combine() -> None:
    taps: dict[str, mx.array] = {}
    indices, weights = route(Recording(taps=taps))
    want = combine_in_float64()
    assert indices.shape == weights.shape == (2, 4, TOP_K)
    assert g.rel_rms(moe.combine_matrix(indices, weights, X), want) < 1e-6
    assert g.rel_rms(taps["router.combine"], want) < 1e-6
    sums = np.array(weights / mx.array(PER_EXPERT.astype(np.float32))[indices]).sum(-1)
    assert sums == pytest.approx(1.0, abs=1e-6)


def test_of_equal_experts_the_lower_index_wins() -> None:
    same = np.ones((X, D))
    indices, _ = moe.route(mlx(H), mlx(SCALE), mlx(same), mlx(PER_EXPERT), TOP_K, 1e-6)
    assert np.array_equal(np.array(indices), np.broadcast_to(np.arange(TOP_K), (2, 4, TOP_K)))


@pytest.mark.parametrize(("dtype", "bound"), [(mx.float32, 1e-6), (mx.bfloat16, 2e-2), (mx.float16, 2e-3)])
def test_experts_are_a_weighted_sum(dtype: mx.Dtype, bound: float) -> None:
    indices, weights = route()
    x, gate_up, down = (mlx(value).astype(dtype) for value in (H, GATE_UP, DOWN))
    got = moe.apply_experts(x, indices, weights, gate_up, down)

    gate, up = np.einsum("bld,xfd->xblf", H, GATE_UP[:, :F]), np.einsum("bld,xfd->xblf", H, GATE_UP[:, F:])
    act = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
    want = np.einsum("blx,xblf,xdf->bld", combine_in_float64(), act, DOWN)
    assert got.dtype == dtype
    assert g.rel_rms(got, want) < bound


def test_an_expert_that_nobody_chose_is_not_read() -> None:
    x, gate_up, down = mlx(H), mlx(GATE_UP), mlx(DOWN)
    indices = mx.broadcast_to(mx.array([0, 2]), (2, 4, 2))
    weights = mx.full((2, 4, 2), 0.5)
    want = moe.apply_experts(x, indices, weights, gate_up, down)
    spoiled = mx.concatenate([gate_up[:1], mx.full((1, 2 * F, D), mx.nan), gate_up[2:]])
    assert mx.array_equal(moe.apply_experts(x, indices, weights, spoiled, down), want)
