"""The profiles end to end: what each can show, and what rounding hides."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from conformance.adapters.base import Request
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import create
from conformance.judging.judge import Judge
from gemma4_contract.tensors import Array
from reference.oracle.arithmetic import Arithmetic
from reference.oracle.ops import Ops
from reference.oracle.oracle import Oracle
from tests.support.installed import FIXTURES

HOT = "layer/e2b-mini/full-shared-hot"
PROBS = "model.layers.9.self_attn.probs"


def judged(case_id: str, profile: str, ops: type[Ops] = Ops) -> tuple[str, str | None]:
    verdict = Judge(FIXTURES, OracleAdapter(oracle=Oracle(ops=ops)), profile).judge(case_id)
    first = verdict.first_divergence
    return verdict.outcome, first.name if first else None


class LowPrecisionSoftmax(Ops):
    """The softmax in bfloat16 throughout, whatever the profile."""

    def softmax(self, scores: Array, mask: Array | None = None) -> Array:
        every_op = Arithmetic(
            name="bf16 softmax",
            dtype=np.dtype(ml_dtypes.bfloat16),
            wide=np.dtype(ml_dtypes.bfloat16),
            accumulate=np.dtype(np.float32),
        )
        return Ops(every_op).softmax(scores, mask).astype(self.ar.wide)


def test_a_low_precision_softmax_is_caught_in_the_hot_layer() -> None:
    assert judged(HOT, "f32", LowPrecisionSoftmax) == ("fail", PROBS)
    assert judged("module/attention-core/hot", "f32", LowPrecisionSoftmax) == ("fail", "context")


def test_in_bf16_it_drowns_in_scores_that_honest_implementations_round() -> None:
    """transformers' eager attention rounds the scores themselves, which moves the probabilities by more."""
    assert judged(HOT, "bf16", LowPrecisionSoftmax) == ("pass", None)


class Narrow(OracleAdapter):
    """Claims float32 and hands out bfloat16."""

    def run(self, request: Request) -> dict[str, Array]:
        return {name: value.astype(ml_dtypes.bfloat16) for name, value in super().run(request).items()}


def test_a_port_that_lies_about_its_profile_is_told_so() -> None:
    verdict = Judge(FIXTURES, Narrow(), "f32").judge("module/rms-norm/weighted")
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.fault == "dtype bfloat16, expected float32 or float64"


@pytest.mark.parametrize("impl", ["oracle", "mlx_impl"])
def test_an_overflow_in_float16_is_advice_and_no_failure(impl: str) -> None:
    verdict = Judge(FIXTURES, create(impl), "f16").judge("module/mlp/overflow")
    assert verdict.outcome == "advice"
    assert verdict.note.startswith("advice: act * up overflows float16")
    assert [tap.status for tap in verdict.taps] == ["advice", "advice"]


class Wide(OracleAdapter):
    """Multiplies the MLP in float32, as the advice says."""

    def run(self, request: Request) -> dict[str, Array]:
        return super().run(dataclasses.replace(request, profile="f32"))


def test_a_port_that_heeds_the_advice_passes() -> None:
    assert Judge(FIXTURES, Wide(), "f16").judge("module/mlp/overflow").outcome == "pass"


@pytest.mark.parametrize("profile", ["bf16", "f16"])
def test_teacher_forced_moe_layers_are_decided_in_low_precision(profile: str) -> None:
    for name in ("sliding-own", "full-own-hot"):
        assert judged(f"layer/26b-a4b-mini/{name}", profile) == ("pass", None)


def test_a_chained_moe_run_in_bf16_says_where_it_becomes_undecidable() -> None:
    verdict = Judge(FIXTURES, create("mlx_impl"), "bf16").judge("forward/26b-a4b-mini/uniform-l19/no-cache")
    assert verdict.outcome == "undecidable"
    assert "undecidable from model.layers." in verdict.note
    assert {tap.status for tap in verdict.taps} <= {"pass", "undecidable"}


@pytest.mark.parametrize("profile", ["bf16", "f16"])
def test_the_rounded_embedding_scale_is_exact_to_the_bit(profile: str) -> None:
    case_id = f"module/embedding/rounded-scale-{profile}"
    for impl in ("oracle", "mlx_impl"):
        assert Judge(FIXTURES, create(impl), profile).judge(case_id).outcome == "pass"
    other = "f16" if profile == "bf16" else "bf16"
    assert Judge(FIXTURES, create("oracle"), other).judge(case_id).outcome == "skip"
