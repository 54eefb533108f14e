"""Rows that rounding decides: what follows a choice of experts is compared only where the choice can be known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conformance.judging.routing import Comparable, choices_of, comparable_rows
from gemma4_contract.routing import Experts, routing_margins
from gemma4_contract.tensors import Array
from reference.models import MODELS
from reference.taps import Tap, model_taps

TAPS = [tap for tap in model_taps(MODELS["26b-a4b-mini"].config) if "S" not in tap.axes]
ROUTING = [tap.name for tap in TAPS if tap.cls == "routing"]
LENGTH, BATCH = 5, 2
ROUTER, CHOICE = "model.layers.1.router.proj", "model.layers.1.router.combine"


def golden() -> dict[str, Array]:
    taps = {tap.name: np.ones([{"B": BATCH, "L": LENGTH}.get(axis, 3) for axis in tap.axes]) for tap in TAPS}
    for name in ROUTING:
        taps[name] = np.tile([0.0, 0.7, 0.4], (BATCH, LENGTH, 1))
        taps[name.replace("combine", "proj")] = np.tile([-1.0, 2.0, 1.0], (BATCH, LENGTH, 1))
    return taps


def with_other_choice(name: str, row: int, batch: int = 0) -> dict[str, Array]:
    answer = golden()
    answer[name][batch, row] = [0.4, 0.7, 0.0]
    return answer


def rows_of(answer: dict[str, Array], *, narrow: bool | None) -> dict[str, Array]:
    def narrow_rows(logits: str, gaps: Array) -> Array | None:
        assert logits.endswith("router.proj")
        return None if narrow is None else np.full(gaps.shape, narrow)

    return dict(compared(answer, narrow_rows).rows)


def compared(answer: dict[str, Array], narrow_rows: Any) -> Comparable:
    expected = golden()
    shapes = {name: value.shape for name, value in expected.items()}
    experts = {name: Experts.of(expected[name.replace("combine", "proj")], expected[name]) for name in ROUTING}
    return comparable_rows(TAPS, shapes, choices_of(experts, answer), narrow_rows)


def test_the_margin_is_the_gap_between_the_last_chosen_and_the_next() -> None:
    logits = np.array([[3.0, 1.0, 2.5, -1.0]])
    assert routing_margins(logits, np.array([[0.5, 0.0, 0.5, 0.0]])).tolist() == [1.5]
    assert routing_margins(logits, np.array([[0.5, 0.2, 0.3, 0.0]])).tolist() == [2.0]


@pytest.mark.parametrize("narrow", [True, False])
def test_where_the_choice_is_the_golden_s_everything_is_compared(narrow: bool) -> None:
    assert all(rows.all() for rows in rows_of(golden(), narrow=narrow).values())


def test_a_choice_that_differs_at_a_wide_margin_is_compared_and_will_fail() -> None:
    assert all(rows.all() for rows in rows_of(with_other_choice(CHOICE, 2), narrow=False).values())


def test_a_choice_that_differs_at_a_narrow_margin_takes_along_what_is_computed_from_it() -> None:
    rows = rows_of(with_other_choice(CHOICE, 2), narrow=True)
    itself, after = [True, True, False, True, True], [True, True, False, False, False]
    untouched = ["model.embed_tokens", ROUTER, "model.layers.1.residual_1", "model.layers.1.mlp.down_proj"]
    in_its_row = [CHOICE, "model.layers.1.experts", "model.layers.1.output", "model.layers.2.self_attn.k_rope"]
    in_all_later = ["model.layers.2.self_attn.context", "model.layers.2.output", "model.layers.5.output", "logits"]
    for names, expected in ((untouched, [True] * 5), (in_its_row, itself), (in_all_later, after)):
        for name in names:
            assert rows[name][0].tolist() == expected, name
            assert rows[name][1].all(), name  # the other row of the batch knows nothing of it


def test_the_first_undecidable_choice_is_named() -> None:
    answer = with_other_choice("model.layers.3.router.combine", 1) | {CHOICE: with_other_choice(CHOICE, 4)[CHOICE]}
    found = compared(answer, lambda _, gaps: np.ones(gaps.shape, bool))
    assert found.first_undecidable == (CHOICE, 4)


def test_a_port_that_hides_its_choice_is_compared_where_margins_are_wide_alone() -> None:
    answer = {name: value for name, value in golden().items() if name not in ROUTING}
    assert not rows_of(answer, narrow=True)["model.layers.0.output"].any()
    assert rows_of(answer, narrow=True)["model.layers.0.residual_1"].all()
    assert all(rows.all() for rows in rows_of(answer, narrow=False).values())


def test_where_no_floor_was_ever_measured_nothing_behind_the_router_is_compared() -> None:
    rows = rows_of(golden(), narrow=None)
    assert rows[ROUTER.replace("layers.1", "layers.0")].all()
    assert not rows["model.layers.0.experts"].any()
    assert not rows["logits"].any()


def test_taps_without_rows_have_no_mask() -> None:
    donors = Tap(name="donors", axes=("N",), parents=())
    shapes = {name: value.shape for name, value in golden().items()} | {"donors": (3,)}
    found = comparable_rows([donors, replace(TAPS[0])], shapes, {}, lambda _, gaps: gaps)
    assert list(found.rows) == [TAPS[0].name]
    assert found.first_undecidable is None
