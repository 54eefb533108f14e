"""Measuring local floors, with the oracle on one small case and errors put into chosen taps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from conformance.adapters.base import Hello, Request
from conformance.adapters.oracle import OracleAdapter
from conformance.calibration import honest
from conformance.calibration.local_floors import measure_local_floors
from gemma4_contract.graph import text_graph
from gemma4_contract.models import LocalFloors
from gemma4_contract.tensors import Array
from reference.cases import Draft, all_drafts
from tests.support.installed import FIXTURES

CASE = "forward/trap-gqa/uniform-l19/no-cache"
(DRAFT,) = (draft for draft in all_drafts(0) if draft.id == CASE)
ACT, DOWN = "model.layers.{i}.mlp.act", "model.layers.{i}.mlp.down_proj"


@pytest.fixture(autouse=True)
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def drafts(_: int) -> Iterator[Draft]:
        yield DRAFT

    monkeypatch.setattr(honest, "all_drafts", drafts)
    monkeypatch.setattr(honest, "require_exact_products", lambda *_: None)


class Bent:
    """The oracle, its answer bent: one tap larger by a part, another left out."""

    def __init__(self, part: float = 0.0, *, tap: str = "model.layers.2.mlp.act", without: str = "") -> None:
        self.part, self.tap, self.without, self.oracle = part, tap, without, OracleAdapter()

    def hello(self) -> Hello:
        return self.oracle.hello()

    def run(self, request: Request) -> dict[str, Array]:
        taps = {name: value for name, value in self.oracle.run(request).items() if name != self.without}
        if self.tap in taps:
            taps[self.tap] = taps[self.tap] * (1 + self.part)
        return taps


def measured(adapters: Mapping[str, Bent]) -> LocalFloors:
    return measure_local_floors(FIXTURES, "f32", adapters, 1, "the command", lambda *_: None)


def test_there_is_one_floor_for_each_node() -> None:
    table = measured({"one": Bent()})
    nodes = {node.tap for node in text_graph().nodes if node.when != "moe"}
    assert nodes == set(table.floors)
    assert (table.profile, table.seeds, table.command) == ("f32", 1, "the command")
    assert all(0 <= rms < 1e-6 for rms, _ in table.floors.values())


def test_an_error_is_seen_at_its_node_and_where_it_was_not_gone_on_with() -> None:
    plain, bent = measured({"one": Bent()}).floors, measured({"one": Bent(1e-3)}).floors
    assert bent[ACT][0] == pytest.approx(1e-3, rel=0.2)
    changed = {tap for tap in plain if max(bent[tap]) > 2 * max(*plain[tap], 1e-9)}
    assert changed == {ACT, DOWN}


def test_what_lies_beyond_a_tap_that_is_left_out_is_not_measured() -> None:
    error = 1e-3
    bridged = measured({"one": Bent(error, tap="model.layers.2.mlp.down_proj", without="model.layers.2.mlp.act")})
    assert bridged.floors[DOWN][0] < 1e-6
    assert measured({"one": Bent(error, tap="model.layers.2.mlp.down_proj")}).floors[DOWN][0] == pytest.approx(
        error, rel=0.2
    )


def test_stored_floors_stand_for_every_node_and_hold_without_any_family() -> None:
    for profile in FIXTURES.profiles:
        table = FIXTURES.local_floors(profile)
        assert set(table.floors) == {node.tap for node in text_graph().nodes}
        assert table.seeds >= 8
        assert {one.name for one in table.variants} == set(honest.honest_variants(profile))
        ratios = dict(table.leave_one_family_out)
        if (
            profile == "f64"
        ):  # without NumPy nobody is left who sums term by term; a port in JavaScript does, and passes
            del ratios["numpy"]
        assert max(ratios.values()) < FIXTURES.policy.floor_factor
