"""`explain`: all that is known of a tap, for every node, at any width, by any of its names."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner

from conformance.adapters.registry import BadOption
from conformance.cli.app import app
from conformance.diagnosis import explain
from gemma4_contract.graph import text_graph
from gemma4_contract.node import Node, below_layer
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS
from tests.support import ROOT
from tests.support.installed import FIXTURES

GRAPH = text_graph()
each_node = pytest.mark.parametrize("node", GRAPH.nodes, ids=lambda node: node.short)


@cache
def facts(name: str) -> dict[str, Any]:
    return dict(explain.facts(GRAPH, FIXTURES, explain.place_of(GRAPH, name)))


@each_node
def test_it_is_said_where_a_tap_is_computed(node: Node) -> None:
    computed = facts(node.tap)["computed"]
    assert computed.keys() == {"reference.oracle", "mlx_impl"}
    for package, places in computed.items():
        (place,) = places  # one place shows it
        path, _, line = place.rpartition(":")
        assert path.startswith(package.replace(".", "/") + "/")
        assert f'"{node.short}"' in "".join((ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1 :][:2])


@each_node
def test_every_tap_has_cases(node: Node) -> None:
    cases = facts(node.tap)["cases"]
    assert cases["forward"]
    assert set(cases) >= {"layer"} if node.in_layers else True
    for kind, ids in cases.items():
        for case in map(FIXTURES.case, ids):
            assert case.kind == kind
    asked = [GRAPH.node_of(tap.name) for tap in FIXTURES.taps(FIXTURES.case(cases["forward"][0]))]
    assert any(one is node for one in asked)


@each_node
def test_the_text_fits_a_narrow_terminal_and_says_everything(node: Node) -> None:
    found = facts(node.tap)
    text = explain.as_text(GRAPH, found, 60)
    assert max(map(len, text.splitlines())) <= 60
    plain = " ".join(text.split())
    for words in (node.tap, node.does, node.formula, node.axes, node.cls, *node.config):
        assert " ".join(words.split()) in plain
    for one in (*(source.tap for source in node.sources), *(weight.name for weight in node.weights)):
        assert below_layer(one) in plain
    for mistake in found["mistakes"]:
        assert f"{mistake['id']} ({mistake['layers']})" in plain


def test_every_mistake_of_a_whole_model_is_seen_first_at_the_tap_that_it_names() -> None:
    told = {one["id"] for node in GRAPH.nodes for one in facts(node.tap)["mistakes"]}
    whole = {mutant.id for mutant in MUTANTS.values() if mutant.first_tap != STOPS and mutant.layers != "module cases"}
    assert whole <= told
    assert "rope-sign-flipped" in {one["id"] for one in facts("self_attn.q_rope")["mistakes"]}


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("self_attn.q_rope", "model.layers.{i}.self_attn.q_rope"),
        ("model.layers.{i}.self_attn.q_rope", "model.layers.{i}.self_attn.q_rope"),
        ("model.layers.7.self_attn.q_rope", "model.layers.7.self_attn.q_rope"),
        ("output", "model.layers.{i}.output"),
        ("model.ple", "model.ple"),
        ("logits", "logits"),
    ],
)
def test_a_tap_goes_by_its_full_name_and_by_that_below_its_layer(name: str, tap: str) -> None:
    assert facts(name)["tap"] == tap


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("q_rop", "did you mean self_attn.q_rope"),
        ("model.layers.3.self_attn.qrope", "did you mean self_attn.q_rope"),
        ("model.layers.3.residual", "residual_1"),
        ("zzz", "see `gemma4-conformance graph`"),
    ],
)
def test_an_unknown_name_is_answered_in_one_line_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(BadOption) as refused:
        explain.place_of(GRAPH, name)
    assert hint in str(refused.value)
    assert f"got '{name}', expected the name of a tap" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_json_is_for_machines() -> None:
    done = CliRunner().invoke(app, ["explain", "experts", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["weights"] == [
        {"name": "model.layers.{i}.experts.gate_up_proj", "shape": "X 2*M D"},
        {"name": "model.layers.{i}.experts.down_proj", "shape": "X D M"},
    ]
    assert [one["tap"] for one in found["inputs"]] == [
        "model.layers.{i}.pre_feedforward_layernorm_2",
        "model.layers.{i}.router.combine",
    ]
    assert found["class"] == "floor"
    assert "module/experts/" in found["cases"]["experts"][0]
    assert [one["function"] for one in found["functions"]] == ["experts", "gelu_tanh"]


def test_graph_lists_the_nodes_in_their_order() -> None:
    lines = CliRunner().invoke(app, ["graph"]).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [node.tap for node in GRAPH.nodes]
    assert all(re.fullmatch(r"[^\t]+\t[^\t]+\t[^\t]+", line) for line in lines)
    stored = (FIXTURES.root / "graph" / "gemma4-text.json").read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["graph", "--json"]).stdout == stored
