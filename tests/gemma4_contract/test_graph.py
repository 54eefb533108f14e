"""The graph as data: what it says of every configuration against what is stored, and what its file may hold."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from gemma4_contract import FixtureError, Fixtures, checkpoint, expand, tensors
from gemma4_contract.documents import write_model
from gemma4_contract.full_size import FOLDER as FULL_SIZE
from gemma4_contract.graph import FOLDER, TEXT, Graph, Place, text_graph
from gemma4_contract.models import ModelCard
from gemma4_contract.node import Node
from reference import full_size
from reference.config import TextConfig
from reference.layouts import LAYOUTS, Layout
from reference.models import MODELS, Model

GRAPH = text_graph()
PATH = Fixtures().root / FOLDER / f"{TEXT}.json"
EVERY: dict[str, Model | Layout] = {**MODELS, **LAYOUTS, **full_size.models()}
each_model = pytest.mark.parametrize("model", EVERY.values(), ids=EVERY.keys())
each_node = pytest.mark.parametrize("node", GRAPH.nodes, ids=lambda node: node.short)


# --- what it says of a configuration


@pytest.mark.parametrize("model", MODELS)
def test_taps_are_those_of_the_stored_cases(model: str) -> None:
    """Names, axes, parents and classes as case.json has them, of the whole pass and of single layers."""
    fixtures, taps = Fixtures(), {tap.name: tap for tap in expand.taps(GRAPH, MODELS[model].config)}
    cases = [case for case in fixtures.cases() if case.model == model and case.taps]
    assert [case.kind for case in cases].count("forward") == 1
    for case in cases:
        asked = [tap.name for tap in case.taps]
        assert asked == [name for name in taps if name in asked]
        assert case.kind != "forward" or asked == list(taps)
        for spec in case.taps:
            tap = taps[spec.name]
            alone = case.kind == "subgraph" and tap.cls != "routing"  # every parent's value is given
            inside = [parent for parent in tap.parents if parent in asked and not alone]
            assert (spec.axes, spec.parents, spec.cls) == (list(tap.axes), inside, tap.cls), (case.id, spec.name)


@pytest.mark.parametrize("model", full_size.models())
def test_what_is_kept_at_full_size_is_what_the_stored_cases_hold(model: str) -> None:
    fixtures = Fixtures(Fixtures().root / FULL_SIZE)
    (case,) = [case for case in fixtures.cases() if case.model == model and case.taps]
    taps = {tap.name: tap for tap in expand.taps(GRAPH, full_size.models()[model].config)}
    nodes = {name: GRAPH.node_of(name) for name in taps}
    assert [spec.name for spec in case.taps] == [
        name for name, node in nodes.items() if node and node.stored is not None
    ]
    for spec in case.taps:
        node = nodes[spec.name]
        assert node is not None
        assert node.stored is not None
        assert spec.picks is not None
        assert (tuple(spec.axes), spec.cls) == (taps[spec.name].axes, taps[spec.name].cls)
        assert spec.picks.taken.keys() == {"L", *node.stored}
        for axis, count in node.stored.items():
            kept, whole = len(spec.numbers(axis)), spec.picks.whole[spec.axes.index(axis)]
            assert kept == min(count, whole) or (spec.name == "logits" and count < kept <= whole)  # the largest as well


@pytest.mark.parametrize("model", MODELS)
def test_weights_are_those_of_the_stored_checkpoints(model: str) -> None:
    folder, prefix = Fixtures().model_dir(model), MODELS[model].tensor_prefix
    stored = {
        name.replace(prefix, "model.", 1): entry.shape
        for path in checkpoint.parts(folder)
        if path.suffix == ".safetensors"
        for name, entry in tensors.read_lazily(path).items()
    }
    shapes = expand.weight_shapes(GRAPH, MODELS[model].config)
    surplus = stored.keys() - shapes.keys()
    assert {name: shape for name, shape in stored.items() if name not in surplus} == shapes
    assert bool(surplus) == MODELS[model].redundant_shared_kv


def test_the_models_at_full_size_have_as_many_weights_as_their_cards_say() -> None:
    for name, model in full_size.models().items():
        shapes = expand.weight_shapes(GRAPH, model.config)
        path = Fixtures().root / FULL_SIZE / "models" / name / "model.json"
        card = ModelCard.model_validate_json(path.read_bytes())
        assert (card.tensors, card.parameters) == (len(shapes), sum(map(math.prod, shapes.values()))), name


# --- names


@each_model
def test_every_tap_leads_back_to_its_node_and_layer(model: Model | Layout) -> None:
    for (node, layer), tap in zip(expand.nodes_of(GRAPH, model.config), expand.taps(GRAPH, model.config), strict=True):
        assert GRAPH.place_of(tap.name) == Place(node=node, layer=layer)
        assert (GRAPH.node_of(tap.name), GRAPH.layer_of(tap.name), node.named(layer)) == (node, layer, tap.name)
        assert tap.name == (node.tap if layer is None else f"model.layers.{layer}.{node.short}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "y",
        "model",
        "model.layers.1",
        "model.layers.x.output",
        "model.layers.01.output",
        "model.layers.{i}.output",
        "model.layers.1.output.1",
        "model.layers.1.2.output",
        "layers.1.output",
        "model.norm.1",
        "model.1.norm",
    ],
)
def test_what_is_no_tap_has_no_node(name: str) -> None:
    assert (GRAPH.place_of(name), GRAPH.node_of(name), GRAPH.layer_of(name)) == (None, None, None)
    assert GRAPH.is_asked(name, plain=False)
    assert not GRAPH.mixes_rows(name)
    with pytest.raises(KeyError):
        GRAPH.length_axis(name)


def test_what_enters_a_layer() -> None:
    taps = {tap.name: tap for tap in expand.taps(GRAPH, MODELS["31b-mini"].config)}
    assert [expand.entering(GRAPH, i) for i in (0, 1, 6)] == [
        "model.embed_tokens",
        "model.layers.0.output",
        "model.layers.5.output",
    ]
    for layer in range(6):
        assert taps[f"model.layers.{layer}.input_layernorm"].parents == (expand.entering(GRAPH, layer),)
    assert taps["model.norm"].parents == (expand.entering(GRAPH, 6),)


def test_sizes_of_axes() -> None:
    config = MODELS["e2b-mini"].config
    letters = expand.sizes(config, config.num_hidden_layers - 1)
    assert (letters["F"], letters["E"]) == (2 * config.intermediate_size, config.global_head_dim)
    assert [expand.size_of(axis, letters) for axis in ("D", "H*E", "2*D", "1")] == [48, 128, 96, 1]
    assert letters.keys() - expand.sizes(config, None).keys() == {"E", "K", "F"}
    assert {letter.letter for letter in GRAPH.letters} - letters.keys() == {"B", "L", "S"}


# --- the file


def test_the_file_is_canonical(tmp_path: Path) -> None:
    write_model(tmp_path / "again.json", GRAPH)
    assert (tmp_path / "again.json").read_bytes() == PATH.read_bytes()


@each_node
def test_every_node_says_what_it_is(node: Node) -> None:
    assert re.fullmatch(r"[A-Z][^\n]*\.", node.does), node.does
    assert node.formula.strip() == node.formula != ""
    assert node.inputs
    assert "L" in node.axes.split()
    for letters, whole in ((node.stored or {}, node.axes.split()), (node.huggingface.axes or "", node.axes)):
        assert set(letters) <= set(whole) | set("* ")


def test_what_is_asked_without_a_cache_alone_is_what_has_keys_for_an_axis() -> None:
    """S grows with the calls, so that the tensors of several calls are no one tensor."""
    for node in GRAPH.nodes:
        assert (node.plans == "no-cache") == ("S" in node.axes.split()), node.tap


def test_a_weight_has_one_shape_wherever_it_is_used() -> None:
    used = [weight for node in GRAPH.nodes for weight in node.weights]
    shapes = {weight.name: weight.shape for weight in used}
    assert len(used) > len(shapes)  # the tied table, and the keys' projection where K = V
    assert [weight.shape for weight in used] == [shapes[weight.name] for weight in used]


def texts() -> list[tuple[str, str]]:
    of_functions = [(f"{one.function}()", one.latex) for one in GRAPH.functions]
    return [*((node.short, node.latex) for node in GRAPH.nodes), *of_functions]


@pytest.mark.parametrize(("name", "latex"), texts(), ids=[name for name, _ in texts()])
def test_latex_is_balanced(name: str, latex: str) -> None:
    assert latex, name
    plain = re.sub(r"\\[{}]", "", latex)
    depth = 0
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    assert latex.count(r"\begin") == latex.count(r"\end")
    assert latex.count(r"\big(") == latex.count(r"\big)")
    assert latex.count(r"\Big(") == latex.count(r"\Big)")
    assert plain.count("(") == plain.count(")")
    assert not re.search(r"(?<!\\)[%#$]", latex)  # which a Markdown page or TeX would take for something else


def test_conditions_are_the_words_that_the_code_knows_and_fields_of_the_configuration() -> None:
    assert GRAPH.conditions.keys() == expand.CONDITIONS.keys()
    asked = {one.when for node in GRAPH.nodes for one in (node, *node.sources, *node.weights)} - {None}
    assert {word for word in asked if word not in GRAPH.conditions} <= set(TextConfig.__slots__)
    assert GRAPH.conditions.keys() <= asked  # no word that nothing uses


def test_fields_and_letters_are_those_of_the_configuration() -> None:
    fields = set(TextConfig.__slots__)
    for node in GRAPH.nodes:
        assert set(node.config) <= fields, node.tap
    for letter in GRAPH.letters:
        assert set(letter.config) <= fields, letter.letter
        assert bool(letter.config) == (letter.letter not in "BLS")


def test_every_function_is_used_by_a_node_or_a_formula() -> None:
    words = {
        word for _, node in enumerate(GRAPH.nodes) for word in re.findall(r"\w+", f"{node.function} {node.formula}")
    }
    words |= {word for one in GRAPH.functions for word in re.findall(r"\w+", one.formula)}
    assert {one.function for one in GRAPH.functions} <= words


def test_an_input_acts_through_another_input_of_the_node() -> None:
    through = {node.short: one.through for node in GRAPH.nodes for one in node.sources if one.through}
    assert through == {"self_attn.context": "model.layers.{i}.self_attn.probs"}
    for node in GRAPH.nodes:
        for one in node.sources:
            assert one.through is None or one.through in {other.tap for other in node.sources}


# --- files that are refused


def damaged(change: Any) -> str:
    raw = json.loads(PATH.read_bytes())
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["nodes"][0].update(inputs=["idz"]), "inputs idz: not declared"),
        (lambda raw: raw["nodes"][4].update(inputs=["model.layers.{j}.output"]), "layers {j}: not declared"),
        (lambda raw: raw["nodes"][0].update(axes="B L Q"), "letters Q: not declared"),
        (lambda raw: raw["nodes"][0].update(function="lookup"), "functions lookup: not declared"),
        (lambda raw: raw["nodes"][0].update(part="middle"), "parts middle: not declared"),
        (lambda raw: raw["nodes"][0].update(colour="red"), "Extra inputs are not permitted at nodes.0.colour"),
        (lambda raw: raw["nodes"][0].pop("rows"), "Field required at nodes.0.rows"),
    ],
)
def test_a_damaged_graph_is_refused_in_one_line(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(damaged(change), encoding="utf-8")
    with pytest.raises(FixtureError) as refused:
        Graph.read(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_verify_finds_a_damaged_graph(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    path = tmp_path / FOLDER / f"{TEXT}.json"
    path.parent.mkdir()
    path.write_bytes(PATH.read_bytes())
    fixtures = Fixtures(tmp_path)
    fixtures.write_sums()
    assert [fault for fault in fixtures.verify() if fault.path == str(path)] == []
    path.write_text(damaged(lambda raw: raw.pop("nodes")), encoding="utf-8")
    fixtures.write_sums()
    (fault,) = [fault for fault in fixtures.verify() if fault.path == str(path)]
    assert "Field required at nodes" in str(fault)
