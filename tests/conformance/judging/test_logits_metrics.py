"""Divergence, likelihood and arg-max of logits, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conformance.judging.logits_metrics import ARGMAX, KL, NLL, judge_figures, whole_model
from gemma4_contract.tensors import Array
from tests.support.installed import FIXTURES

POLICY = FIXTURES.policy
IDS = np.array([[0, 1, 1]])
ROWS = np.ones((1, 3), bool)


def logits(*rows: list[float]) -> Array:
    return np.array([rows])


GOLDEN = logits([math.log(3), 0.0], [0.0, 0.5], [2.0, 0.0])


def test_equal_logits_diverge_nowhere_and_agree_everywhere() -> None:
    figures = whole_model(GOLDEN, GOLDEN, IDS, ROWS, movable=0.1)
    assert (figures.kl_mean, figures.kl_p99, figures.nll_difference) == (0.0, 0.0, 0.0)
    assert (figures.decided, figures.agreeing, figures.undecidable) == (3, 3, 0)


def test_the_divergence_is_kullback_and_leibler_s_from_the_golden() -> None:
    answer = GOLDEN.copy()
    answer[0, 0] = [0.0, 0.0]  # p = (3/4, 1/4) against (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    figures = whole_model(GOLDEN, answer, IDS, ROWS, movable=0.0)
    assert math.isclose(figures.kl_mean, expected / 3, rel_tol=1e-12)
    assert math.isclose(figures.kl_p99, float(np.quantile([expected, 0, 0], 0.99)), rel_tol=1e-12)


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    figures = whole_model(GOLDEN, GOLDEN + 7.0, IDS, ROWS, movable=0.0)
    assert figures.kl_mean < 1e-15
    assert figures.nll_difference < 1e-15


def test_the_likelihood_is_that_of_the_next_token() -> None:
    figures = whole_model(GOLDEN, GOLDEN, IDS, ROWS, movable=0.0)
    first, second = math.log(4), math.log(1 + math.exp(-0.5))  # of token 1 after rows 0 and 1
    assert math.isclose(figures.nll, (first + second) / 2, rel_tol=1e-12)


@pytest.mark.parametrize(("movable", "decided"), [(0.0, 3), (0.26, 2), (0.6, 1), (1.1, 0)])
def test_an_arg_max_is_decided_where_the_margin_exceeds_twice_what_rounding_moves(movable: float, decided: int) -> None:
    figures = whole_model(GOLDEN, GOLDEN, IDS, ROWS, movable)
    assert (figures.decided, figures.undecidable) == (decided, 3 - decided)


def test_rows_that_do_not_count_are_left_out() -> None:
    answer = GOLDEN.copy()
    answer[0, 2] = [0.0, 9.0]
    figures = whole_model(GOLDEN, answer, IDS, np.array([[True, True, False]]), movable=0.0)
    assert figures.kl_mean == 0.0
    assert figures.agreeing == figures.decided == 2


def test_a_single_row_has_no_likelihood() -> None:
    figures = whole_model(GOLDEN[:, :1], GOLDEN[:, :1], IDS[:, :1], ROWS[:, :1], movable=0.0)
    assert (figures.nll, figures.nll_difference) == (0.0, 0.0)


def verdicts(answer: Array, floor: float) -> dict[str, str]:
    figures = whole_model(GOLDEN, answer, IDS, ROWS, movable=0.05)
    judged = judge_figures(figures, [floor, floor], [floor, floor], POLICY)
    return {verdict.name: verdict.status for verdict in judged}


def test_figures_are_judged_by_their_floors() -> None:
    answer = GOLDEN.copy()
    answer[0, 1] = [0.0, 0.6]
    assert verdicts(answer, floor=1.0) == {KL: "pass", NLL: "pass", ARGMAX: "pass"}
    assert verdicts(answer, floor=1e-6) == {KL: "fail", NLL: "fail", ARGMAX: "pass"}


def test_another_token_at_a_decided_row_fails() -> None:
    answer = GOLDEN.copy()
    answer[0, 2] = [0.0, 2.0]
    assert verdicts(answer, floor=9.0) == {KL: "pass", NLL: "pass", ARGMAX: "fail"}
