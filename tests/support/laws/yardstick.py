"""A tolerance without stored floors: what rounding costs is measured on the example itself.

The floor of a tap is the largest relative error that the oracle in float32, in any order of summation, shows at it or
at any tap before it in execution order; the tolerance is made of it as for the fixtures.

Four orders are few samples, and of elementwise operations they are one alone: the error of one token whose query
head is 50 times shorter than the others, or whose GELU cancels, is any number up to 40 times the luckiest one. Hence
`more`: Monte Carlo arithmetic (Parker 1997), sixteen runs whose every sum and constant is off by up to one ulp.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from conformance.judging.compare import measure
from conformance.judging.tolerance import Tolerance, tolerance
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.oracle import plans
from reference.oracle.arithmetic import F32, F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.oracle.summation import ORDERS
from reference.taps import Tap, model_taps
from tests.support.installed import FIXTURES
from tests.support.laws.configurations import Example, weights_of

POLICY = FIXTURES.policy
PROFILE = FIXTURES.profile("f32")
NARROW = 1e-3
"""Below this share of the largest router logit, a margin between chosen and not chosen is left undecided."""

Taps = Mapping[str, Array]
Run = Callable[[Arithmetic], Taps]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first tap, in execution order, that is outside its tolerance."""

    tap: str
    got: str
    allowed: str
    ratio: float = math.inf

    def __str__(self) -> str:
        return f"first diverging tap: {self.tap}: got {self.got}, expected {self.allowed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """The goldens of one example in execution order, what is valid in each, and the tolerance."""

    golden: Taps
    valid: Taps
    allowed: Mapping[str, Tolerance]

    def first_divergence(self, answers: Taps, *, times: float = 1.0) -> Divergence | None:
        """The first tap of `answers` further from its golden than `times` its tolerance; absent taps diverge."""
        for name, golden in self.golden.items():
            if (answer := answers.get(name)) is None or answer.shape != golden.shape:
                shape = None if answer is None else answer.shape
                return Divergence(tap=name, got=f"shape {shape}", allowed=f"shape {golden.shape}")
            error, allowed = measure(answer, golden, self.valid[name]), self.allowed[name]
            if not (error.rms <= times * allowed.rms and error.max <= times * allowed.max):
                return Divergence(
                    tap=name,
                    got=f"rms {error.rms:.2e}, max {error.max:.2e}, worst at {list(error.worst)}",
                    allowed=f"at most rms {times * allowed.rms:.2e}, max {times * allowed.max:.2e}",
                    ratio=error.rms / allowed.rms if allowed.rms else math.inf,
                )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jittered(Arithmetic):
    """Float32 in which every product of matrices, every sum and every constant is off by up to one ulp."""

    random: np.random.Generator

    def scalar(self, value: float, like: Array) -> Array:
        """A constant in the dtype of `like`."""
        return self._jitter(np.asarray(value, like.dtype))

    def matmul(self, a: Array, b: Array) -> Array:
        """a @ b: [..., M, I] @ [..., I, O] -> [..., M, O]."""
        return self._jitter(Arithmetic.matmul(self, a, b))

    def sum(self, x: Array, axis: int = -1) -> Array:
        """Sum over an axis, kept as length 1."""
        return self._jitter(Arithmetic.sum(self, x, axis))

    def _jitter(self, x: Array) -> Array:
        ulps = self.random.uniform(-1.0, 1.0, x.shape) * float(np.finfo(x.dtype).eps)
        return (x.astype(np.float64) * (1.0 + ulps)).astype(x.dtype)


def honest(*, more: bool) -> Iterator[Arithmetic]:
    """Float32 in every order of summation that sets floors, then sixteen jittered ones if `more` are asked for."""
    for order in ORDERS:
        yield dataclasses.replace(F32, order=order)
    for seed in range(16 if more else 0):
        random = np.random.default_rng(seed)
        yield Jittered(name="f32", dtype=F32.dtype, wide=F32.wide, accumulate=F32.accumulate, random=random)


def yardstick(run: Run, taps: list[Tap], mask: Array | None, *, more: bool = False) -> Yardstick:
    """Measure `run` in float32 against float64, over the taps (in execution order) that the float64 run has."""
    golden = run(F64)
    present = [tap for tap in taps if tap.name in golden]
    valid = {tap.name: valid_of(tap, golden[tap.name].shape, mask) for tap in present}
    variants = [run(variant) for variant in honest(more=more)]
    allowed, worst = {}, [0.0, 0.0]
    for tap in present:
        values, seen = golden[tap.name], valid[tap.name]
        for variant in variants:
            error = measure(variant[tap.name], values, seen)
            if math.isfinite(error.rms):  # infinite where the golden is zero throughout: there zero is the answer
                worst = [max(worst[0], error.rms), max(worst[1], error.max)]
        allowed[tap.name] = tolerance(worst, values[seen], PROFILE, POLICY)
    return Yardstick(golden={tap.name: golden[tap.name] for tap in present}, valid=valid, allowed=allowed)


def valid_of(tap: Tap, shape: tuple[int, ...], mask: Array | None) -> Array:
    """The mask [B, L] spread over a tap's axes."""
    spread = spread_mask(mask, tap.axes, shape)
    return np.ones(shape, bool) if spread is None else spread


def oracle_taps(example: Example, ar: Arithmetic, inputs: Taps | None = None) -> dict[str, Array]:
    """Every tap of an example (or of other inputs under its plan) by the oracle."""
    given = example.inputs if inputs is None else inputs
    decoder = Decoder(example.config, weights_of(example.text_config), ar)
    steps, valid = example.plan.steps, given.get("valid")
    return plans.run(decoder, given["ids"], given["positions"], valid=valid, steps=steps)


def yardstick_of(example: Example, inputs: Taps | None = None, *, more: bool = False) -> Yardstick:
    """The yardstick of an example's forward pass, or of other inputs under its plan."""
    mask = (example.inputs if inputs is None else inputs).get("valid")
    return yardstick(lambda ar: oracle_taps(example, ar, inputs), model_taps(example.config), mask, more=more)


def golden_of(example: Example) -> tuple[Taps, Taps]:
    """The float64 taps and what is valid in each."""
    golden, mask = oracle_taps(example, F64), example.inputs.get("valid")
    valid = {
        tap.name: valid_of(tap, golden[tap.name].shape, mask)
        for tap in model_taps(example.config)
        if tap.name in golden
    }
    return golden, valid


def is_narrow(config: TextConfig, golden: Taps, valid: Taps) -> bool:
    """Whether some token's last chosen expert is hardly ahead of the first that is not chosen."""
    if not config.enable_moe_block or config.top_k_experts == config.num_experts:
        return False
    assert config.top_k_experts
    for name in (name for name in golden if name.endswith("router.proj")):
        logits = golden[name][valid[name].all(-1)]  # [tokens, X]
        ranked = np.sort(logits, -1)[:, ::-1]
        margin = ranked[:, config.top_k_experts - 1] - ranked[:, config.top_k_experts]
        if (margin < NARROW * np.abs(logits).max()).any():
            return True
    return False
