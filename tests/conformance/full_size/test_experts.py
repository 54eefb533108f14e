"""The choice of experts is known at rows that are not stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.adapters.base import Request
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter
from conformance.judging.examine import Examiner
from conformance.judging.question import Question
from gemma4_contract import Fixtures
from gemma4_contract.full_size import at_full_size
from gemma4_contract.routing import routing_margins
from reference import full_size
from tests.support.small_full_size import TINY


@pytest.mark.parametrize(
    ("row", "margin", "outcome"),
    [
        (40, 0.0, "undecidable"),  # not stored, before stored rows: everything after it in later layers may differ
        (40, 1.0, "fail"),  # at a wide margin no rounding chooses otherwise
        (88, 0.0, "undecidable"),
        (None, 0.0, "pass"),
    ],
)
def test_a_choice_at_a_row_that_is_not_stored(
    row: int | None, margin: float, outcome: str, places: tuple[Path, Path]
) -> None:
    """A port that chooses other experts there, and is wrong in all that attends to it."""

    class Chooses(MlxImplAdapter):
        def run(self, request: Request) -> dict[str, Any]:
            answer = super().run(request)
            combine = answer["model.layers.2.router.combine"].copy()
            if row is None:
                return answer
            combine[0, row] = np.roll(combine[0, row], 1)
            answer["model.layers.2.router.combine"] = combine
            for name in ("model.layers.3.self_attn.context", "model.layers.3.output", "logits"):
                answer[name] = answer[name] * np.where(np.arange(89) > row, 1.01, 1.0)[None, :, None]
            return answer

    root, cache = places
    full = at_full_size(Fixtures(root), cache / "full")
    question = Question.of(full, "forward/experts-full/text-l89/no-cache")
    experts = dict(question.stored.experts)
    margins = experts["model.layers.2.router.combine"].margins.copy()
    if row is not None:
        margins[0, row] = margin
    experts["model.layers.2.router.combine"] = replace(experts["model.layers.2.router.combine"], margins=margins)
    question = replace(question, stored=replace(question.stored, experts=experts))
    answer = Chooses().run(question.request("f32"))
    verdict = Examiner(full, "f32").examine(question, answer)
    assert verdict.outcome == outcome
    if outcome == "undecidable":
        assert f"undecidable from model.layers.2.router.combine, row {row} on" in verdict.note


def test_where_no_honest_pass_chose_alike_nothing_is_told(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in bf16 after the first layers: taps without a floor are undecidable, and the case is not green."""
    root, cache = places
    full = at_full_size(Fixtures(root), cache / "full")
    question = Question.of(full, "forward/experts-full/text-l89/no-cache")
    table = full.floors("f32")
    measured = {name: floor for name, floor in table.floors[question.case.id].items() if name != "logits"}
    monkeypatch.setattr(full, "floors", lambda _: table.model_copy(update={"floors": {question.case.id: measured}}))
    answer = MlxImplAdapter().run(question.request("f32"))
    verdict = Examiner(full, "f32").examine(question, answer)
    assert verdict.outcome == "undecidable"
    assert verdict.note.startswith("undecidable from logits on")
    wrong = Examiner(full, "f32").examine(question, answer | {"model.norm": answer["model.norm"] * 1.01})
    assert wrong.outcome == "fail"


def test_the_choices_of_a_mixture_are_stored_for_every_row() -> None:
    full = at_full_size(Fixtures(), Path())
    whole, cut = (full.case(f"forward/26b-a4b-full/text-l{length}/no-cache") for length in (1105, 64))
    choices = full.choices(whole)
    assert len(choices) == 2 * 30
    chosen, margin = (choices[f"model.layers.29.router.combine{end}"] for end in ("", ".margin"))
    assert (chosen.shape, margin.shape) == ((1, 1105, 8), (1, 1105))
    assert (np.diff(chosen.astype(int), axis=-1) > 0).all()
    rows = full_size.stored_rows(full_size.FULL_SIZE["26b-a4b-full"])
    stored = full.golden(whole)["model.layers.29.router.combine"]
    assert np.array_equal(np.argwhere(stored[0])[:, 1].reshape(-1, 8), chosen[0, rows])
    assert full.choices(cut)["model.layers.29.router.combine"].shape == (1, 64, 8)
    assert full.choices(full.case("forward/31b-full/text-l1105/no-cache")) == {}


def test_margins_are_those_of_the_router_s_logits(places: tuple[Path, Path]) -> None:
    full = at_full_size(Fixtures(places[0]), Path())
    case = full.case("forward/experts-full/text-l89/no-cache")
    golden, choices, rows = full.golden(case), full.choices(case), full_size.stored_rows(TINY["experts-full"])
    routing = [name for name in choices if not name.endswith(".margin")]
    assert routing
    for name in routing:
        expected = routing_margins(golden[name.replace("combine", "proj")], golden[name])
        assert np.allclose(choices[f"{name}.margin"][:, rows], expected, atol=1e-5)
