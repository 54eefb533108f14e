"""Every node of every layer of every miniature, each from golden values of its own parents: three implementations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from conformance.adapters.base import Array, Request
from conformance.adapters.registry import create
from reference.cases import Draft
from reference.cases.layer import layer_draft, layer_kinds, subgraph_draft
from reference.export.agreement import worst_difference
from reference.export.derive import by_oracle, by_transformers, computable_subgraph, single_threaded
from reference.models import MODELS
from tests.support.installed import FIXTURES

LAYERS = [
    pytest.param(model, layer, id=f"{model}-{layer}")
    for model in MODELS
    for layer in range(MODELS[model].config.num_hidden_layers)
]


def every_node(model: str, layer: int) -> Draft:
    whole = layer_draft(MODELS[model], "any", layer, 0)
    return subgraph_draft(MODELS[model], "any", whole, 0)


def by_port(name: str, draft: Draft) -> Mapping[str, Array]:
    assert draft.model is not None
    request = Request(
        case=draft.id,
        kind=draft.kind,
        profile="f32",
        model_dir=FIXTURES.model_dir(draft.model),
        params=draft.params,
        inputs=draft.inputs,
        want=tuple(tap.name for tap in draft.taps),
    )
    return create(name).run(request)


@pytest.mark.parametrize(("model", "layer"), LAYERS)
def test_transformers_agrees_on_every_node(model: str, layer: int) -> None:
    draft = every_node(model, layer)
    golden = by_oracle(draft)
    with single_threaded():
        alone, around = by_transformers(draft, lifted=True), by_transformers(computable_subgraph(draft), lifted=True)
    asked_around = golden.keys() - alone.keys()
    plain = not MODELS[model].config.hidden_size_per_layer_input
    listed = {"self_attn.context", *(("residual_2", "output") if plain else ())}
    assert asked_around == {f"model.layers.{layer}.{name}" for name in listed}
    assert worst_difference(alone, golden)[0] < 1e-12
    expected = by_oracle(computable_subgraph(draft))
    assert worst_difference({name: around[name] for name in asked_around & around.keys()}, expected)[0] < 1e-12
    assert asked_around - around.keys() <= {f"model.layers.{layer}.residual_2"}  # seen in `output`, one product later


@pytest.mark.parametrize(("model", "layer"), LAYERS)
def test_mlx_impl_agrees_on_every_node(model: str, layer: int) -> None:
    pytest.importorskip("mlx.core")
    draft = every_node(model, layer)
    answer = by_port("mlx_impl", draft)
    assert answer.keys() == {tap.name for tap in draft.taps}
    assert worst_difference(answer, by_oracle(draft))[0] < 1e-6


def without_reads(draft: Draft) -> Draft:
    """The same question for a port that never shows which keys and values its attention reads."""
    given = {name: x for name, x in draft.inputs.items() if not name.endswith((".k_read", ".v_read"))}
    return replace(draft, inputs=given)


@pytest.mark.parametrize("model", ["e2b-mini", "31b-mini", "26b-a4b-mini"])
def test_mlx_lm_agrees_on_the_nodes_that_it_offers(model: str) -> None:
    """What it fuses, and without per-layer embeddings never shows, is left out; a value not put in leaves out more."""
    pytest.importorskip("mlx_lm")
    plain = not MODELS[model].config.hidden_size_per_layer_input
    fused = {f"self_attn.{name}" for name in ("k_read", "v_read", "probs", "context")}
    fused |= {"residual_2", "output"} if plain else set()
    for layer in layer_kinds(MODELS[model].config).values():
        draft = every_node(model, layer)
        answer = by_port("mlx_lm", draft)
        assert {tap.name for tap in draft.taps} - answer.keys() == {f"model.layers.{layer}.{name}" for name in fused}
        assert worst_difference(answer, by_oracle(draft))[0] < 1e-6
        context = f"model.layers.{layer}.self_attn.context"  # from queries, keys and values: no probabilities given
        around = without_reads(computable_subgraph(draft))
        assert worst_difference({context: by_port("mlx_lm", around)[context]}, by_oracle(around))[0] < 1e-6


def test_every_wrong_node_is_seen_and_no_other() -> None:
    """A given value stands for each parent: no mistake is handed on, and a second one is not hidden by the first."""
    draft = every_node("e2b-mini", 4)
    golden, answer = by_oracle(draft), by_port("mutant:gelu-silu", draft)
    wrong = {name for name in golden if worst_difference({name: answer[name]}, golden)[0] > 1e-6}
    assert wrong == {"model.layers.4.mlp.act", "model.layers.4.ple_gated"}


def test_the_stored_ones_are_a_layer_of_every_kind_and_small() -> None:
    stored = {case_id for case_id in FIXTURES.case_ids if case_id.startswith("subgraph/")}
    nested = [model for model in MODELS.values() if model.nested]
    assert stored == {f"subgraph/{model.id}/{name}" for model in nested for name in layer_kinds(model.config)}
    folder = FIXTURES.root / "cases" / "subgraph"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 6_000_000
