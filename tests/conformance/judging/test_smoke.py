"""Smoke cases: a port that reads, writes or hashes in a usual wrong way is told which in a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from conformance.adapters.base import Request
from conformance.adapters.oracle import OracleAdapter
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from gemma4_contract import Case
from gemma4_contract.models import Lookalike
from gemma4_contract.tensors import Array
from reference.export import scalar_rule
from tests.support.installed import FIXTURES

ECHO, SQUARE = "module/echo/dtypes-and-axes", "module/linear/square"
KNOWING = [case for case in FIXTURES.cases() if case.lookalikes]
EVERY = [(case, known) for case in KNOWING if case.lookalikes for known in case.lookalikes.known]

Answer = dict[str, Array]
Slip = Callable[[Request], Answer]
"""The taps that a port answers wrongly."""


class Slips(OracleAdapter):
    """The oracle, whose answer somebody changes."""

    def __init__(self, slip: Slip) -> None:
        super().__init__()
        self._slip = slip

    def run(self, request: Request) -> Answer:
        return super().run(request) | self._slip(request)


def told(case_id: str, slip: Slip) -> str:
    verdict = Judge(FIXTURES, Slips(slip), "f32").judge(case_id)
    assert verdict.outcome == "fail"
    return verdict.note


@pytest.mark.parametrize(("case", "known"), EVERY, ids=[f"{case.id} {known.tensor}" for case, known in EVERY])
def test_every_known_wrong_answer_is_told_its_advice(case: Case, known: Lookalike) -> None:
    wrong = FIXTURES.lookalikes(case)[known.tensor]
    assert told(case.id, lambda _: {known.tap: wrong}) == f"looks like: {known.advice}"


@pytest.mark.parametrize("case", KNOWING, ids=lambda case: case.id)
def test_known_wrong_answers_are_wrong_and_different(case: Case) -> None:
    answers, golden = FIXTURES.lookalikes(case), FIXTURES.golden(case)
    assert case.lookalikes is not None
    assert sorted(answers) == sorted(known.tensor for known in case.lookalikes.known)
    for known in case.lookalikes.known:
        assert not np.array_equal(answers[known.tensor], golden[known.tap])
    for one, other in itertools.combinations(case.lookalikes.known, 2):
        if one.tap == other.tap and one.advice != other.advice:
            assert not np.array_equal(answers[one.tensor], answers[other.tensor]), (one.tensor, other.tensor)


@pytest.mark.parametrize("profile", ["f64", "f32", "bf16", "f16"])
def test_the_right_answer_passes_to_the_bit_in_every_profile(profile: str) -> None:
    judge = Judge(FIXTURES, OracleAdapter(), profile)
    assert {case.id: judge.judge(case.id).outcome for case in KNOWING} == {case.id: "pass" for case in KNOWING}
    assert all(tap.cls == "exact" for case in KNOWING for tap in case.taps)


def test_a_wrong_answer_that_nobody_knows_gets_no_advice() -> None:
    assert told(ECHO, lambda request: {"x": request.inputs["x"] + 1}) == ""
    assert told("module/softcap/cap-30", lambda request: {"y": request.inputs["x"] * 2}) == ""


def test_advice_is_on_the_tap_that_failed() -> None:
    case = FIXTURES.case(ECHO)
    question, reversed_ids = Question.of(FIXTURES, ECHO), FIXTURES.lookalikes(case)["ids.bytes"]
    assert "little-endian" in question.advice("ids", {"ids": reversed_ids})
    assert question.advice("x", {"x": reversed_ids}) == ""


# The slips once more, as ports make them.


def big_endian(x: Array) -> Array:
    return np.frombuffer(x.tobytes(), x.dtype.newbyteorder(">")).reshape(x.shape).astype(x.dtype)


def test_a_big_endian_reader() -> None:
    assert "little-endian" in told(ECHO, lambda request: {"x": big_endian(request.inputs["x"])})


def test_a_big_endian_reader_that_writes_so_as_well() -> None:
    def both(request: Request) -> Answer:
        total = big_endian(request.inputs["ids"]).astype(np.int64).sum(1).astype(np.int32)
        return {"sum": big_endian(total)}

    assert "here reading and writing both err" in told(ECHO, both)


def test_a_column_major_reader() -> None:
    def fortran(request: Request) -> Answer:
        x = request.inputs["x"]
        return {"x": np.array(np.ndarray(x.shape, x.dtype, x.tobytes(), order="F"))}

    assert "row-major" in told(ECHO, fortran)


def test_a_weight_that_is_not_transposed() -> None:
    said = told(SQUARE, lambda request: {"y": request.inputs["x"] @ request.inputs["weight"]})
    assert said.endswith("a weight is stored [out, in], so y = x W^T")


def hashed(state: Callable[[str, int], int]) -> Slip:
    """Answers with q from other hash words."""

    def slip(request: Request) -> Answer:
        p: Mapping[str, Any] = request.params
        tops = [scalar_rule.splitmix64(state(p["name"], i)) >> 56 for i in range(p["first"], p["first"] + p["count"])]
        return {"q": np.array([top - 256 if top > 127 else top for top in tops], np.int32)}

    return slip


def fnv1(name: str) -> int:
    digest = 14695981039346656037
    for byte in name.encode():
        digest = digest * 1099511628211 % 2**64 ^ byte
    return digest


def fnv1a(name: str) -> int:
    return scalar_rule.fnv1a64(name.encode())


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (lambda name, i: (fnv1(name) + i) % 2**64, "this is FNV-1"),
        (lambda name, i: (fnv1a(name.split("/", 1)[1]) + i) % 2**64, "begins with the id of the model"),
        (lambda name, i: (fnv1a(name) + (i ^ 2**31) - 2**31) % 2**64, "ran over in a signed 32-bit integer"),
    ],
)
def test_a_hash_gone_wrong(state: Callable[[str, int], int], said: str) -> None:
    assert said in told("module/weights/beyond-int32", hashed(state))
