"""Which taps a prediction goes through because a port does not offer them."""

from __future__ import annotations

from conformance.local.bridges import bridges, used_parents
from gemma4_contract.graph import text_graph
from gemma4_contract.models import TapSpec
from tests.support.installed import FIXTURES

TAPS = FIXTURES.taps(FIXTURES.case("forward/e2b-mini/uniform-l19/no-cache"))
NAMES = {tap.name for tap in TAPS}
SHARED = 9
"""The last layer, which reads a donor's keys."""


def spec(name: str) -> TapSpec:
    return next(tap for tap in TAPS if tap.name == name)


def at(layer: int, tap: str) -> str:
    return f"model.layers.{layer}.{tap}"


def test_with_every_tap_there_is_none() -> None:
    assert set(bridges(TAPS, NAMES).values()) == {frozenset()}


def test_a_bridge_leads_from_offered_taps_to_the_next_offered_one() -> None:
    missing = {at(2, "self_attn.o_proj"), at(2, "post_attention_layernorm")}
    through = bridges(TAPS, NAMES - missing)
    assert through[at(2, "residual_1")] == missing
    assert {name for name, taps in through.items() if taps} == {at(2, "post_attention_layernorm"), at(2, "residual_1")}


def test_a_port_with_outputs_alone_is_bridged_from_layer_to_layer() -> None:
    outputs = {at(layer, "output") for layer in range(10)} | {"logits"}
    through = bridges(TAPS, outputs)
    assert through["logits"] == {"model.norm", "logits.raw"}
    assert 10 < len(through[at(0, "output")]) < 30
    assert all(at(0, "output") not in taps for taps in through.values())


def test_a_parent_that_acts_through_an_offered_one_is_not_needed() -> None:
    context = spec(at(SHARED, "self_attn.context"))
    assert set(used_parents(context, NAMES)) == {at(SHARED, "self_attn.probs"), at(SHARED, "self_attn.v_read")}
    few = NAMES - {at(SHARED, "self_attn.probs")}
    assert at(SHARED, "self_attn.q_rope") in set(used_parents(context, few))
    assert bridges(TAPS, few)[context.name] == frozenset()  # other plans go through it as well


def test_the_graph_says_what_acts_through_what() -> None:
    stand_ins = text_graph().stand_ins(at(3, "self_attn.probs"))
    assert stand_ins == {at_any("self_attn.k_rope"): at_any("self_attn.k_read")}
    assert text_graph().stand_ins("y") == {}


def at_any(tap: str) -> str:
    return f"model.layers.{{i}}.{tap}"
