"""The small functions against float64 formulas written out here, and the dtype of every output."""

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gemma4_contract.recording import Recording
from mlx_impl import MlxImplError, parse_config
from mlx_impl.model import attention, decoder, embedding, mlp, moe, norms, ple, rope
from tests.support import gemma4_small as g

RNG = np.random.default_rng(20)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def test_rms_norm_multiplies_by_the_weight_itself() -> None:
    x, w = normal(2, 3, 16), normal(16)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-3)
    assert g.rel_rms(norms.rms_norm(mx.array(x), None, 1e-3), want) < 1e-6
    assert g.rel_rms(norms.rms_norm(mx.array(x), mx.array(w), 1e-3), want * w) < 1e-6


def test_rms_norm_of_large_f16_does_not_overflow() -> None:
    x = mx.full((1, 8), 60000.0, dtype=mx.float16)
    assert norms.rms_norm(x, None, 1e-6).tolist() == [[1.0] * 8]


@pytest.mark.parametrize(("head_dim", "theta", "kind", "factor", "turning"), [
    (256, 1e4, "default", 1.0, 128), (512, 1e6, "proportional", 0.25, 64), (512, 1e6, "proportional", 0.0, 0),
    (16, 1e6, "proportional", 1.0, 8),
])  # fmt: skip
def test_inverse_frequencies(head_dim: int, theta: float, kind: str, factor: float, turning: int) -> None:
    got = np.array(rope.inverse_frequencies(head_dim, theta, kind, factor))
    want = [theta ** (-2 * j / head_dim) if j < turning else 0.0 for j in range(head_dim // 2)]
    assert got.dtype == np.float32
    assert np.array_equal(got, np.array(want).astype(np.float32))


def test_frequencies_of_a_published_model() -> None:
    config = parse_config(g.FAMILY["e2b"])
    full, sliding = rope.layer_frequencies(config, 4), rope.layer_frequencies(config, 0)
    assert (full.shape, sliding.shape) == ((256,), (128,))
    assert np.count_nonzero(np.array(full)) == 64
    assert full[1].item() == pytest.approx(1e6 ** (-2 / 512), rel=1e-7)
    assert sliding[1].item() == pytest.approx(1e4 ** (-2 / 256), rel=1e-7)


def test_an_unknown_rope_type_is_refused() -> None:
    with pytest.raises(MlxImplError, match="rope_type: got 'linear'"):
        rope.inverse_frequencies(8, 1e4, "linear", 1.0)


@pytest.mark.parametrize("start", [0, 1, 511, 131071 - 3])
def test_rope_turns_pairs_half_a_head_apart(start: int) -> None:
    x, inv_freq = normal(2, 3, 4, 16), rope.inverse_frequencies(16, 1e6, "proportional", 0.5)
    positions = np.array([[start + i for i in range(4)], [max(start - 1, 0)] * 4], dtype=np.int32)
    got = np.array(rope.apply_rope(mx.array(x), mx.array(positions), inv_freq))
    angle = (positions.astype(np.float32)[:, None, :, None] * np.array(inv_freq)).astype(np.float64)
    z = (x[..., :8] + 1j * x[..., 8:]) * np.exp(1j * angle)
    assert g.rel_rms(got, np.concatenate([z.real, z.imag], -1)) < 2e-7
    assert np.array_equal(got[..., 4:8], x[..., 4:8])  # pairs beyond the factor stand still
    assert np.array_equal(got[..., 12:], x[..., 12:])


def test_rope_distances_alone_matter() -> None:
    q, k, inv_freq = normal(1, 1, 1, 8), normal(1, 1, 1, 8), rope.inverse_frequencies(8, 1e4, "default", 1.0)

    def score(at_q: int, at_k: int) -> float:
        turned = [rope.apply_rope(mx.array(x), mx.array([[at]]), inv_freq) for x, at in ((q, at_q), (k, at_k))]
        return float(np.sum(np.array(turned[0] * turned[1])))

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 1e-2


@pytest.mark.parametrize(
    ("width", "scale"), [(1536, 39.25), (2560, 50.5), (2816, 53.0), (3840, 62.0), (5376, 73.5), (96, 9.8125)]
)
def test_embedding_scale_is_rounded_to_bf16(width: int, scale: float) -> None:
    assert embedding.embedding_scale(width, mx.bfloat16).item() == scale
    assert embedding.embedding_scale(width, mx.float32).item() == np.float32(math.sqrt(width))


def test_scaled_embedding_multiplies_after_rounding_the_scale() -> None:
    table = mx.array(normal(5, 96)).astype(mx.bfloat16)
    got = embedding.scaled_embedding(mx.array([[3, 0]]), table)
    want = (table[mx.array([[3, 0]])].astype(mx.float32) * 9.8125).astype(mx.bfloat16)
    assert mx.array_equal(got, want)


def test_gelu_tanh_is_the_tanh_form_to_the_ends() -> None:
    x = np.linspace(-12, 12, 4001).astype(np.float32)
    wide = x.astype(np.float64)
    want = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    assert np.abs(np.array(mlp.gelu_tanh(mx.array(x))) - want).max() < 1e-6
    erf = 0.5 * wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
    assert np.abs(erf - want).max() > 1e-4  # so the bound tells the two forms apart
    assert mlp.gelu_tanh(mx.array([-1e30, 0.0, 1e30])).tolist() == pytest.approx([0.0, 0.0, 1e30])


def test_softcap() -> None:
    x = np.linspace(-200, 200, 101).astype(np.float32)
    assert g.rel_rms(decoder.softcap(mx.array(x), 20.0), 20 * np.tanh(x / 20)) < 1e-6
    assert np.array_equal(np.array(decoder.softcap(mx.array(x), None)), x)


def test_per_layer_inputs_formula() -> None:
    ids, h, table = np.array([[1, 3, 0]]), normal(1, 3, 8), normal(5, 12)  # N = 3, P = 4
    projection, w = normal(12, 8), normal(4)
    taps: dict[str, mx.array] = {}
    got = ple.per_layer_inputs(
        mx.array(ids), mx.array(h), mx.array(table), mx.array(projection), mx.array(w), 1e-6, 3, Recording(taps=taps)
    )
    tokens = (table[ids] * math.sqrt(4)).reshape(1, 3, 3, 4)
    raw = (h.astype(np.float64) @ projection.T / math.sqrt(8)).reshape(1, 3, 3, 4)
    context = raw / np.sqrt((raw**2).mean(-1, keepdims=True) + 1e-6) * w
    assert g.rel_rms(got, (tokens + context) / math.sqrt(2)) < 1e-6
    assert g.rel_rms(taps["model.embed_tokens_per_layer"], tokens) < 1e-6
    assert g.rel_rms(taps["model.per_layer_projection_norm"], context) < 1e-6
    assert mx.array_equal(taps["model.ple"], got)


def modules(dtype: mx.Dtype) -> dict[str, Callable[[], Any]]:
    """Every function that computes, on inputs and weights of one dtype."""

    def a(*shape: int) -> mx.array:
        return mx.array(normal(*shape)).astype(dtype)

    ids, at = mx.array([[1, 2, 3]]), mx.array([[0, 1, 2]])
    x = a(1, 3, 8)
    indices, weights = mx.array([[[0, 2]] * 3]), mx.full((1, 3, 2), 0.5)
    return {
        "rms_norm": lambda: norms.rms_norm(x, a(8), 1e-6),
        "rms_norm without weight": lambda: norms.rms_norm(x, None, 1e-6),
        "apply_rope": lambda: rope.apply_rope(a(1, 2, 3, 8), at, rope.inverse_frequencies(8, 1e4, "default", 1.0)),
        "scaled_embedding": lambda: embedding.scaled_embedding(ids, a(5, 8)),
        "embedding_scale": lambda: embedding.embedding_scale(8, dtype),
        "per_layer_inputs": lambda: ple.per_layer_inputs(ids, x, a(5, 8), a(8, 8), a(4), 1e-6, 2),
        "gated": lambda: ple.gated(x, a(1, 3, 4), a(4, 8), a(8, 4), a(8), 1e-6),
        "gelu_tanh": lambda: mlp.gelu_tanh(x),
        "gated_mlp": lambda: mlp.gated_mlp(x, a(5, 8), a(5, 8), a(8, 5)),
        "expert_mlp": lambda: moe.expert_mlp(x[0], a(10, 8), a(8, 5)),
        "apply_experts": lambda: moe.apply_experts(x, indices, weights, a(3, 10, 8), a(3, 8, 5)),
        "attention_context": lambda: attention.attention_context(mx.ones((1, 4, 3, 3)), a(1, 2, 3, 8)),
        "softcap": lambda: decoder.softcap(x, 30.0),
        "softcap of None": lambda: decoder.softcap(x, None),
    }


@pytest.mark.parametrize("dtype", g.DTYPES)
@pytest.mark.parametrize("name", modules(mx.float32))
def test_output_dtype_is_the_input_dtype(name: str, dtype: str) -> None:
    assert modules(g.DTYPES[dtype])[name]().dtype == g.DTYPES[dtype]


@pytest.mark.parametrize("dtype", g.DTYPES.values())
def test_what_stays_float32_or_integer(dtype: mx.Dtype) -> None:
    x = mx.array(normal(1, 3, 8)).astype(dtype)
    indices, weights = moe.route(x, x[0, 0], mx.array(normal(4, 8)).astype(dtype), mx.ones((4,), dtype=dtype), 2, 1e-6)
    assert (indices.dtype, weights.dtype) == (mx.int32, mx.float32)
    assert moe.combine_matrix(indices, weights, 4).dtype == mx.float32
    q = mx.array(normal(1, 2, 3, 8)).astype(dtype)
    probs = attention.attention_probs(q, q, mx.ones((1, 1, 3, 3), dtype=mx.bool_))
    assert probs.dtype == mx.float32


@pytest.mark.parametrize("kind", g.SMALL)
@pytest.mark.parametrize("dtype", g.DTYPES)
def test_every_tap_of_a_model_keeps_the_dtype(kind: str, dtype: str) -> None:
    taps: dict[str, mx.array] = {}
    model = g.small(kind, dtype)
    model(mx.array(g.ids(1, 5)), tap=Recording(taps=taps))
    seen = {name: value.dtype for name, value in taps.items()}
    wide = {name for name, found in seen.items() if found != g.DTYPES[dtype]}
    float32_by_design = {name for name in seen if name.endswith(("self_attn.probs", "router.combine"))}
    assert wide <= float32_by_design
    assert all(seen[name] == mx.float32 for name in float32_by_design)
    assert len(seen) > 40


@pytest.mark.parametrize("kind", g.SMALL)
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_low_precision_stays_near_float32(kind: str, dtype: str, bound: float) -> None:
    # One layer's output: further on, a router may rightly choose other experts.
    want: dict[str, mx.array] = {}
    got: dict[str, mx.array] = {}
    ids = mx.array(g.ids(1, 12))
    g.small(kind)(ids, tap=Recording(taps=want))
    g.small(kind, dtype)(ids, tap=Recording(taps=got))
    error = g.rel_rms(got["model.layers.0.residual_1"], want["model.layers.0.residual_1"])
    assert 1e-5 < error < bound
