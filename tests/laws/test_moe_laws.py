"""Laws of the mixture of experts that need no golden, on random sizes and values."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conformance.judging.compare import measure
from gemma4_contract.tensors import Array
from mlx_impl.model import moe
from reference.oracle.arithmetic import F64, Arithmetic
from reference.oracle.ops import Ops
from reference.taps import Tap
from tests.support.laws.budget import share
from tests.support.laws.random_values import normal, seeds, sizes
from tests.support.laws.yardstick import POLICY, yardstick

few = share(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A random mixture of experts: h and x [B, L, D], X experts of width F, of which k are chosen."""

    experts: int
    top_k: int
    width: int
    hidden: int
    length: int
    seed: int

    def weight(self, name: str, *shape: int) -> Array:
        """A matrix whose products keep the size of what they multiply."""
        return normal(name, self.seed, *shape) / np.float32(np.sqrt(shape[-1]))

    @property
    def tensors(self) -> dict[str, Array]:
        """Everything that the router and the experts read, under the names of the module cases."""
        n, d, f = self.experts, self.hidden, self.width
        return {
            "h": normal("h", self.seed, 1, self.length, d),
            "x": normal("x", self.seed, 1, self.length, d),
            "scale": np.full(d, np.sqrt(d), np.float32),
            "proj": self.weight("proj", n, d),
            "per_expert_scale": np.exp2(normal("per_expert", self.seed, n) / 2),
            "gate_up": self.weight("gate_up", n, 2 * f, d),
            "down": self.weight("down", n, d, f),
        }


mixtures = sizes(1, 6).flatmap(
    lambda experts: st.builds(
        Mixture,
        experts=st.just(experts),
        top_k=sizes(1, experts),
        width=sizes(1, 8),
        hidden=sizes(2, 12),
        length=sizes(1, 9),
        seed=seeds,
    )
)


@few
@given(mixtures)
def test_a_mixture_is_the_weighted_sum_of_its_experts_alone(mixture: Mixture) -> None:
    """experts(x) = sum_e combine_e * expert_e(x), and the weights without the experts' own scales sum to 1."""
    t = {name: mx.array(value) for name, value in mixture.tensors.items()}
    indices, weights = moe.route(t["h"], t["scale"], t["proj"], t["per_expert_scale"], mixture.top_k, 1e-6)
    combine = np.array(moe.combine_matrix(indices, weights, mixture.experts))[0]  # [L, X]
    assert ((combine != 0).sum(-1) == mixture.top_k).all()
    shares = combine / mixture.tensors["per_expert_scale"]
    rounding = 4 * mixture.experts * float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(shares.sum(-1), np.ones(mixture.length), rtol=0, atol=rounding)

    got = np.array(moe.apply_experts(t["x"], indices, weights, t["gate_up"], t["down"]))
    alone = [np.array(moe.expert_mlp(t["x"][0], t["gate_up"][e], t["down"][e])) for e in range(mixture.experts)]
    want = sum(combine[:, e, None].astype(np.float64) * alone[e].astype(np.float64) for e in range(mixture.experts))

    def by_oracle(ar: Arithmetic) -> dict[str, Array]:
        x, weight, gate_up, down = (ar.cast(v) for v in (t["x"], combine[None], t["gate_up"], t["down"]))
        return {"experts": Ops(ar).experts(x, weight, gate_up, down)}

    allowed = yardstick(by_oracle, [Tap(name="experts", axes=("B", "L", "D"), parents=())], None).allowed["experts"]
    error = measure(got[0], want, None)
    assert error.rms <= 2 * allowed.rms
    assert error.max <= 2 * allowed.max


@few
@given(mixtures)
def test_the_oracle_too_sums_over_its_experts_alone(mixture: Mixture) -> None:
    """The same law in float64: one expert at a time, with a combine weight of 1, then weighted and summed."""
    t = {name: F64.cast(value) for name, value in mixture.tensors.items()}
    scores = Ops(F64).router_logits(t["h"], t["scale"], t["proj"], 1e-6)
    combine = Ops(F64).combine_weights(scores, t["per_expert_scale"], mixture.top_k)  # [1, L, X]
    got = Ops(F64).experts(t["x"], combine, t["gate_up"], t["down"])
    all_of_it = np.ones((1, mixture.length, 1))
    want = np.zeros_like(got)
    for e in range(mixture.experts):
        one = slice(e, e + 1)
        want += combine[..., one] * Ops(F64).experts(t["x"], all_of_it, t["gate_up"][one], t["down"][one])
    assert measure(got, want, None).rms <= POLICY.agreement


@few
@given(mixtures)
def test_an_expert_that_no_token_chose_is_never_read(mixture: Mixture) -> None:
    """NaN in its weights changes nothing."""
    t = {name: mx.array(value) for name, value in mixture.tensors.items()}
    indices, weights = moe.route(t["h"], t["scale"], t["proj"], t["per_expert_scale"], mixture.top_k, 1e-6)
    idle = np.setdiff1d(np.arange(mixture.experts), np.array(indices))
    poisoned = {name: mixture.tensors[name].copy() for name in ("gate_up", "down")}
    for value in poisoned.values():
        value[idle] = np.nan
    gate_up, down = mx.array(poisoned["gate_up"]), mx.array(poisoned["down"])
    got = moe.apply_experts(t["x"], indices, weights, gate_up, down)
    want = moe.apply_experts(t["x"], indices, weights, t["gate_up"], t["down"])
    np.testing.assert_array_equal(np.array(got), np.array(want))
