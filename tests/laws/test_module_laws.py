"""Laws of single parts that need no golden, on random shapes and values: mlx_impl, and the oracle where it is cheap."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gemma4_contract.recording import Recording
from gemma4_contract.tensors import Array
from mlx_impl.model import attention, decoder, rope
from mlx_impl.model.rope import layer_frequencies
from reference.config import Rope
from reference.oracle.arithmetic import F64
from reference.oracle.ops import Ops
from tests.support.laws import mlx_models
from tests.support.laws.budget import share
from tests.support.laws.configurations import Example, examples
from tests.support.laws.random_values import normal, seeds, sizes

few = share(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The sizes of an attention: K, H/K, L, E, and the window."""

    kv: int
    groups: int
    length: int
    dim: int
    window: int


heads = st.builds(Heads, kv=sizes(1, 3), groups=sizes(1, 3), length=sizes(1, 20), dim=sizes(1, 8), window=sizes(1, 9))


@few
@given(heads, st.data(), seeds)
def test_a_key_outside_the_window_changes_nothing(size: Heads, data: st.DataObject, seed: int) -> None:
    """The core: a key and a value reach the queries at distance 0 to window - 1, all of them, and no other."""
    at = data.draw(sizes(0, size.length - 1), label="key")
    q = normal("q", seed, 1, size.kv * size.groups, size.length, size.dim)
    k, v = (normal(name, seed, 1, size.kv, size.length, size.dim) for name in "kv")
    positions = mx.arange(size.length)[None]
    mask = attention.attention_mask(positions, positions, None, size.window)

    def context(k: Array, v: Array) -> Array:
        made = attention.attention_context(attention.attention_probs(mx.array(q), mx.array(k), mask), mx.array(v))
        return np.array(made[0])  # [L, H*E]

    other_k, other_v = k.copy(), v.copy()
    other_k[:, :, at] *= -1.5
    other_v[:, :, at] += 8.0
    assert_reach(context(other_k, other_v), context(k, v), at, size.window)


@few
@given(examples(sliding=True, padded=False), st.data(), seeds)
def test_a_sliding_layer_reaches_no_further_than_its_window(example: Example, data: st.DataObject, seed: int) -> None:
    """A whole layer's attention: another hidden state at one position is felt in the window after it alone."""
    config, length = example.config, example.plan.length
    layer = next(i for i in range(config.num_hidden_layers) if config.is_sliding(i))
    at = data.draw(sizes(0, length - 1), label="position")
    block = mlx_models.load(example.text_config).model.layers[layer].self_attn
    x = normal("x", seed, 1, length, config.hidden_size)
    other = x.copy()
    other[:, at] = normal("other", seed, config.hidden_size)

    def context(x: Array) -> Array:
        seen: dict[str, mx.array] = {}
        frequencies = layer_frequencies(block.config, layer)
        block(mx.array(x), mx.arange(length)[None], frequencies, tap=Recording(taps=seen))
        return np.array(seen["self_attn.context"][0])

    assert_reach(context(other), context(x), at, config.sliding_window)


def assert_reach(got: Array, want: Array, at: int, window: int) -> None:
    """Rows at .. at + window - 1 of [L, H*E] differ, all others are equal bit for bit."""
    distance = np.arange(len(want)) - at
    reached = (distance >= 0) & (distance < window)
    np.testing.assert_array_equal((got != want).any(-1), reached)


@few
@given(sizes(1, 8), sizes(0, 2000), st.sampled_from([10.0, 1e4, 1e6]), st.sampled_from([1.0, 0.5, 0.25, 0.0]), seeds)
def test_scores_depend_on_distances_alone(pairs: int, shift: int, theta: float, factor: float, seed: int) -> None:
    """Queries and keys moved by the same distance give the same scores, up to the rounding of the angles.

    An angle of a rad is off by a * eps / 2, and a score by that times |q| |k| for each of its four angles.
    """
    length, dim = 6, 2 * pairs
    q, k = (normal(name, seed, 1, 1, length, dim) for name in "qk")
    settings_of = Rope(rope_theta=theta, rope_type="proportional", partial_rotary_factor=factor)
    ours = rope.inverse_frequencies(dim, theta, "proportional", factor)
    theirs = Ops(F64).inverse_frequencies(dim, settings_of)

    def by_mlx(x: Array, positions: Array) -> Array:
        return np.array(rope.apply_rope(mx.array(x), mx.array(positions), ours))

    def by_oracle(x: Array, positions: Array) -> Array:
        return Ops(F64).rope(x.astype(np.float64), positions, theirs)

    here = np.arange(length)[None]
    norms = np.linalg.norm(q[0, 0], axis=-1)[:, None] * np.linalg.norm(k[0, 0], axis=-1)
    for rotate, dtype in ((by_mlx, np.float32), (by_oracle, np.float64)):
        moved, still = (
            (rotate(q, at)[0, 0].astype(np.float64) @ rotate(k, at)[0, 0].astype(np.float64).T)
            for at in (here + shift, here)
        )
        allowed = norms * np.finfo(dtype).eps * (2 * (shift + length) + 8)
        assert (np.abs(moved - still) <= allowed).all(), f"{dtype.__name__}: got {np.abs(moved - still) / allowed}"


finite = st.floats(-1e4, 1e4, width=32)


@few
@given(st.lists(finite, min_size=1, max_size=30), st.sampled_from([0.5, 4.0, 30.0]))
def test_the_softcap_bounds_and_keeps_order(values: list[float], cap: float) -> None:
    """No logit passes the cap, none changes its sign, and no two swap places."""
    x = np.sort(np.array(values, np.float32))
    for y in (
        np.array(decoder.softcap(mx.array(x), cap)),
        Ops(F64).softcap(x.astype(np.float64), cap),
    ):
        assert (np.abs(y) <= cap).all()
        representable = np.abs(x) >= 2.0**-100  # x / cap underflows below
        assert (np.sign(y) == np.sign(x))[representable].all()
        assert (np.diff(y) >= 0).all()
    np.testing.assert_array_equal(np.array(decoder.softcap(mx.array(x), None)), x)
