"""The smallest question that still fails, and the command that puts it."""

from __future__ import annotations

import itertools
import shlex

import numpy as np
import pytest

from conformance.adapters.base import Request
from conformance.adapters.oracle import OracleAdapter
from conformance.diagnosis.shrink import Smallest, StillFails, smallest
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from conformance.reporting.reproduce import rerun_command
from tests.support.fakes import Port, Taps, parrot, raiser
from tests.support.installed import FIXTURES

MODULE = "module/rms-norm/weighted"
ATTENTION = "attention/e2b-mini/sliding-own"
LAYER = "layer/e2b-mini/sliding-own"
L1, L2, L9, L19 = (f"forward/e2b-mini/uniform-l{length}/no-cache" for length in (1, 2, 9, 19))
CHUNKS = "forward/e2b-mini/uniform-l19/chunks-5"
PADDED = "forward/e2b-mini/uniform-l19/padded"


def failing(case: str, first: str | None = None) -> CaseVerdict:
    """A case whose taps are all wrong, or those alone whose name starts like this."""

    def change(taps: Taps) -> Taps:
        return {name: -x if first is None or name.startswith(first) else x for name, x in taps.items()}

    verdict = Judge(FIXTURES, parrot(FIXTURES, change), "f32").judge(case)
    assert verdict.outcome == "fail"
    return verdict


def from_tokens(least: int, asked: list[tuple[str, int | None]]) -> StillFails:
    """A port that is wrong as soon as it is given so many tokens."""

    def still_fails(case: str, tokens: int | None) -> bool:
        asked.append((case, tokens))
        return tokens is None or tokens >= least

    return still_fails


def chosen(*verdicts: CaseVerdict) -> str:
    """The case that is chosen, in whatever order they come."""
    cases = {smallest(FIXTURES, order, None).case for order in itertools.permutations(verdicts)}
    assert len(cases) == 1, cases
    return cases.pop()


# Which case


@pytest.mark.parametrize(
    ("smaller", "larger"), [(MODULE, ATTENTION), (ATTENTION, LAYER), (LAYER, L1)], ids=lambda case: case.split("/")[0]
)
def test_a_module_comes_before_attention_before_a_layer_before_a_whole_pass(smaller: str, larger: str) -> None:
    assert chosen(failing(smaller), failing(larger), failing(L19)) == smaller


def test_fewer_layers_come_before_fewer_tokens() -> None:
    early, late = failing(L9, "model.layers.2."), failing(L1, "model.layers.3.")
    assert chosen(early, late) == L9


def test_the_embedding_comes_before_every_layer_and_what_follows_them_after() -> None:
    embedding, layer = failing(L19, "model.embed_tokens"), failing(L9, "model.layers.0.")
    last, norm, logits = failing(L9, "model.layers.9."), failing(L2, "model.norm"), failing(L1, "logits")
    assert chosen(embedding, layer, last) == L19
    assert chosen(layer, norm, logits) == L9
    assert chosen(last, norm, logits) == L1  # all have passed every layer


def test_fewer_tokens_come_before_more() -> None:
    assert chosen(failing(L9), failing(L2), failing(L19)) == L2


def test_a_golden_of_its_own_is_as_long_as_it_is() -> None:
    """The longest case stores its golden, the others point into it."""
    assert chosen(failing(L19), failing(CHUNKS)) == CHUNKS  # as long: the name decides
    assert chosen(failing(L19), failing("forward/e2b-mini/uniform-l19/tokens")) == L19


def test_of_equals_the_first_by_name_is_chosen() -> None:
    at_1, at_511 = failing("module/rope/default-at-1"), failing("module/rope/default-at-511")
    assert chosen(at_1, at_511) == "module/rope/default-at-1"


def test_a_port_that_stops_is_shown_by_the_shortest_case() -> None:
    judge = Judge(FIXTURES, raiser(ValueError("bad luck")), "f32")
    assert chosen(judge.judge(L19), judge.judge(L2)) == L2


def test_a_wrong_answer_shows_more_than_none() -> None:
    stopped = Judge(FIXTURES, raiser(ValueError("bad luck")), "f32")
    assert chosen(failing(L9), stopped.judge(L2)) == L9
    assert chosen(failing(L9), stopped.judge(LAYER)) == LAYER
    assert (
        chosen(stopped.judge("module/attention-core/causal"), stopped.judge(ATTENTION))
        == "module/attention-core/causal"
    )


# How many tokens


@pytest.mark.parametrize("least", [1, 2, 8, 18])
def test_tokens_are_cut_to_the_fewest_that_fail(least: int) -> None:
    asked: list[tuple[str, int | None]] = []
    assert smallest(FIXTURES, [failing(CHUNKS)], from_tokens(least, asked)) == Smallest(case=CHUNKS, tokens=least)
    assert {case for case, _ in asked} == {CHUNKS}


def test_a_case_that_fails_only_as_a_whole_stays_whole() -> None:
    assert smallest(FIXTURES, [failing(CHUNKS)], from_tokens(19, [])) == Smallest(case=CHUNKS, tokens=None)


def test_without_a_port_nothing_is_cut() -> None:
    assert smallest(FIXTURES, [failing(CHUNKS)], None) == Smallest(case=CHUNKS, tokens=None)


@pytest.mark.parametrize("case", [MODULE, ATTENTION, LAYER, PADDED, L1])
def test_what_cannot_be_cut_is_not_asked_again(case: str) -> None:
    asked: list[tuple[str, int | None]] = []
    assert smallest(FIXTURES, [failing(case)], from_tokens(1, asked)) == Smallest(case=case, tokens=None)
    assert asked == []


def wrong_from_row(row: int) -> Port:
    oracle = OracleAdapter()

    def answer(request: Request) -> Taps:
        taps = oracle.run(request)
        taps["logits"] = np.where(np.arange(taps["logits"].shape[1])[:, None] >= row, -1, 1) * taps["logits"]
        return taps

    return Port(answer)


def test_a_real_port_is_cut_to_where_its_mistake_begins() -> None:
    """One token more than the rows that are right; cut again it passes, whole it fails."""
    judge = Judge(FIXTURES, wrong_from_row(6), "f32")
    found = smallest(
        FIXTURES, [judge.judge(CHUNKS)], lambda case, tokens: judge.judge(case, tokens).outcome in ("fail", "error")
    )
    assert found == Smallest(case=CHUNKS, tokens=7)


# The command


def test_the_command_is_what_one_types() -> None:
    assert rerun_command(FIXTURES, "mlx_impl", "bf16", CHUNKS) == (
        f"pytest conformance/ --impl mlx_impl --profile bf16 --cases '{CHUNKS}'"
    )
    assert rerun_command(FIXTURES, "my_port:MyAdapter", "f32", CHUNKS, 7) == (
        f"pytest conformance/ --impl my_port:MyAdapter --profile f32 --cases '{CHUNKS}' --tokens 7"
    )
    assert shlex.split(rerun_command(FIXTURES, "x", "f32", CHUNKS, 7))[-4:] == ["--cases", CHUNKS, "--tokens", "7"]
