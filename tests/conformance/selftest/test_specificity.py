"""Specificity: honest implementations are not accused, and dishonest ones would be."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.adapters.base import Adapter, Hello, Request
from conformance.adapters.batched import BatchedAdapter
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import create
from conformance.selftest import specificity as honest
from conformance.selftest.specificity import Trial, as_json, as_table, trials
from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array
from tests.support.installed import FIXTURES

FEW = ("module/rms-norm/weighted", "layer/26b-a4b-mini/sliding-own", "forward/trap-gqa/uniform-l19/padded")


class Liar(OracleAdapter):
    """The oracle with every answer a thousandth too large."""

    def run(self, request: Request) -> dict[str, Array]:
        return {name: value * 1.001 for name, value in super().run(request).items()}


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> Fixtures:
    """The fixtures with three cases of their own."""
    fixtures = Fixtures()
    monkeypatch.setitem(fixtures.__dict__, "case_ids", FEW)
    return fixtures


def with_variants(monkeypatch: pytest.MonkeyPatch, setters: dict[str, Adapter], others: dict[str, Adapter]) -> None:
    monkeypatch.setattr(honest, "honest_variants", lambda _profile: setters)
    monkeypatch.setattr(honest, "other_variants", lambda: others)


def test_a_liar_is_accused_in_every_case_and_an_honest_one_in_none(
    monkeypatch: pytest.MonkeyPatch, few_cases: Fixtures
) -> None:
    with_variants(monkeypatch, {"oracle blas": OracleAdapter()}, {"liar": Liar()})
    good, liar = trials(few_cases, ["f32"], lambda *_: None)
    assert (good.variant, good.sets_floor, good.passed, good.accused) == ("oracle blas", True, 3, [])
    assert (liar.variant, liar.sets_floor, liar.passed, liar.accused) == ("liar", False, 0, list(FEW))
    assert as_json([good, liar], few_cases)["accused"] == 3


def test_a_profile_that_is_not_offered_is_not_tried(monkeypatch: pytest.MonkeyPatch, few_cases: Fixtures) -> None:
    with_variants(monkeypatch, {}, {"mlx_impl batched": BatchedAdapter(create("mlx_impl"))})
    assert trials(few_cases, ["f64"], lambda *_: None) == []


@pytest.mark.parametrize("profile", FIXTURES.profiles)
def test_at_least_three_variants_of_every_profile_set_no_floor(profile: str) -> None:
    setters = {variant.name for variant in FIXTURES.floors(profile).variants}
    offered = [name for name, adapter in honest.other_variants().items() if adapter.hello().offers(profile)]
    assert len(set(offered) - setters) == len(offered) >= 3


@pytest.mark.parametrize("profile", FIXTURES.profiles)
def test_the_floors_would_hold_without_any_one_family(profile: str) -> None:
    floors = FIXTURES.floors(profile)
    assert set(floors.leave_one_family_out) == {variant.family for variant in floors.variants}
    assert len(floors.leave_one_family_out) >= 3
    assert max(floors.leave_one_family_out.values()) < FIXTURES.policy.floor_factor


def test_the_table_sums_a_profile_up() -> None:
    rows = [
        Trial(profile="f32", variant="a", family="x", sets_floor=True, passed=5, undecidable=1),
        Trial(profile="f32", variant="b", family="y", sets_floor=False, passed=4, accused=["c"], skipped=2),
    ]
    assert as_table(rows).splitlines()[-1] == "| f32 | 2 | 1 | 10 | 1 | 1 |"


class Echo:
    """Answers with the ids it was given, and remembers the request."""

    seen: Request

    def hello(self) -> Hello:
        return OracleAdapter().hello()

    def run(self, request: Request) -> dict[str, Array]:
        self.seen = request
        return {"logits": request.inputs["ids"]}


def test_a_batched_adapter_doubles_the_batch_and_gives_back_its_second_half() -> None:
    case = FIXTURES.case("forward/trap-gqa/uniform-l19/padded")
    inputs = FIXTURES.inputs(case)
    echo = Echo()
    request = Request(
        case=case.id,
        kind=case.kind,
        profile="f32",
        model_dir=FIXTURES.model_dir("trap-gqa"),
        plan=case.plan,
        inputs=inputs,
        want=("logits",),
    )
    answer = BatchedAdapter(echo).run(request)["logits"]
    assert np.array_equal(answer, inputs["ids"])
    assert echo.seen.inputs["ids"].shape[0] == 2 * inputs["ids"].shape[0]
    assert case.plan is not None
    assert case.plan.left_pad is not None
    assert echo.seen.plan is not None
    assert echo.seen.plan.left_pad == case.plan.left_pad * 2
