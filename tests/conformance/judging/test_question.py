"""A case cut to its first tokens: inputs, goldens and plan, and what becomes of ports that are asked it."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.adapters.base import Request
from conformance.adapters.oracle import OracleAdapter
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from tests.support.fakes import Port, Taps
from tests.support.installed import FIXTURES

L19 = "forward/e2b-mini/uniform-l19"
WHOLE = (
    f"{L19}/padded",
    f"{L19}/padded-no-cache",
    "layer/e2b-mini/sliding-own",
    "attention/e2b-mini/full-own",
    "module/rms-norm/weighted",
)


def question(case_id: str) -> Question:
    return Question.of(FIXTURES, case_id)


def cut_together(whole: Question, short: Question, tokens: int) -> None:
    """Every golden is as long as the tokens along L and S, and holds what stood there."""
    assert short.golden.keys() == whole.golden.keys()
    for tap in whole.taps:
        got, stored = short.golden[tap.name], whole.golden[tap.name]
        wanted = [tokens if axis in "LS" else size for axis, size in zip(tap.axes, stored.shape, strict=True)]
        assert list(got.shape) == wanted, tap.name
        assert np.array_equal(got, stored[tuple(slice(size) for size in wanted)]), tap.name


# What is cut


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        ("no-cache", None),
        ("one-shot", [7]),
        ("chunks-5", [5, 2]),
        ("chunks-11", [7]),
        ("tokens", [1] * 7),
    ],
)
def test_inputs_goldens_and_plan_are_cut_to_as_many_tokens(plan: str, steps: list[int] | None) -> None:
    whole = question(f"{L19}/{plan}")
    short = whole.shortened(7)
    assert short.plan is not None
    assert (short.plan.steps, short.plan.left_pad) == (steps, None)
    assert {name: x.shape for name, x in short.inputs.items()} == {"ids": (1, 7), "positions": (1, 7)}
    assert all(np.array_equal(x, whole.inputs[name][:, :7]) for name, x in short.inputs.items())
    cut_together(whole, short, 7)


def test_a_cut_at_the_end_of_a_step_leaves_no_empty_step() -> None:
    short = question(f"{L19}/chunks-5").shortened(10)
    assert short.plan is not None
    assert short.plan.steps == [5, 5]


def test_probabilities_are_cut_along_queries_and_keys() -> None:
    short = question(f"{L19}/no-cache").shortened(3)
    probs = [x for name, x in short.golden.items() if name.endswith("self_attn.probs")]
    assert {x.shape for x in probs} == {(1, 4, 3, 3)}
    assert all(np.allclose(x.sum(axis=-1), 1) for x in probs)  # no query saw a key that was cut off


def test_a_shorter_case_is_the_longer_one_cut() -> None:
    """Two ways to the same question: rows of the longer golden, and the longer golden cut."""
    cut, stored = question(f"{L19}/no-cache").shortened(7), question("forward/e2b-mini/uniform-l7/no-cache")
    assert all(np.array_equal(x, stored.golden[name]) for name, x in cut.golden.items())
    assert all(np.array_equal(x, stored.inputs[name]) for name, x in cut.inputs.items())


def test_the_request_is_cut_and_keeps_its_name() -> None:
    request = question(f"{L19}/chunks-5").shortened(7).request("f32")
    assert (request.case, request.kind, request.profile) == (f"{L19}/chunks-5", "forward", "f32")
    assert request.plan is not None
    assert request.plan.steps == [5, 2]
    assert request.inputs["ids"].shape == (1, 7)
    assert request.want[-1] == "logits"


# What stays whole


@pytest.mark.parametrize("case_id", WHOLE)
def test_a_case_with_pads_and_one_that_is_no_forward_pass_stay_whole(case_id: str) -> None:
    whole = question(case_id)
    assert not whole.can_be_shortened()
    assert whole.shortened(1) is whole


@pytest.mark.parametrize("tokens", [19, 20])
def test_as_many_tokens_as_there_are_leave_the_case_as_it_is(tokens: int) -> None:
    whole = question(f"{L19}/chunks-5")
    assert whole.can_be_shortened()
    assert whole.shortened(tokens) is whole


# Judged


@pytest.mark.parametrize("profile", ["f32", "bf16"])
@pytest.mark.parametrize("tokens", [1, 6, 10])
@pytest.mark.parametrize("plan", ["no-cache", "chunks-5", "tokens", "padded"])
def test_an_honest_port_is_green_on_a_shortened_case(plan: str, tokens: int, profile: str) -> None:
    verdict = Judge(FIXTURES, OracleAdapter("split"), profile).judge(f"{L19}/{plan}", tokens)
    assert (verdict.outcome, verdict.first_divergence) == ("pass", None)
    assert {tap.status for tap in verdict.taps} == {"pass"}


def doubled_from_row(row: int) -> Port:
    """The oracle with the output of layer 3 doubled from a row on."""
    oracle = OracleAdapter()

    def answer(request: Request) -> Taps:
        taps = oracle.run(request)
        taps["model.layers.3.output"][:, row:] *= 2
        return taps

    return Port(answer)


def test_a_broken_port_is_red_as_soon_as_its_mistake_is_asked() -> None:
    judge = Judge(FIXTURES, doubled_from_row(4), "f32")
    assert judge.judge(f"{L19}/no-cache", 4).outcome == "pass"
    verdict = judge.judge(f"{L19}/no-cache", 5)
    assert verdict.outcome == "fail"
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == "model.layers.3.output"


def test_an_answer_to_the_whole_case_is_no_answer_to_the_shortened_one() -> None:
    port = Port(lambda request: FIXTURES.golden(FIXTURES.case(request.case)))
    verdict = Judge(FIXTURES, port, "f32").judge(f"{L19}/one-shot", 7)
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.fault == "shape [1, 19, 48], expected [1, 7, 48] (B L D)"


@pytest.mark.parametrize("tokens", [2, 4])
def test_figures_of_whole_texts_are_not_asked_of_a_part(tokens: int) -> None:
    """Their floors are of whole texts: in float64 an honest port would exceed them."""
    judge = Judge(FIXTURES, OracleAdapter("split"), "f64")
    case = "forward/trap-ple-unshared/uniform-l19/no-cache"
    assert judge.judge(case, tokens).outcome == "pass"
    assert {tap.name for tap in judge.judge(case).taps} - {tap.name for tap in judge.judge(case, tokens).taps} == {
        "logits.kl",
        "logits.nll",
        "logits.argmax",
    }
