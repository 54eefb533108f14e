"""Sub-graphs as questions: what each kind of case gives, and which answers count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gemma4_contract.graph import text_graph
from gemma4_contract.module_reads import laid_back, laid_out, reads_of
from gemma4_contract.recording import Pieces, Recording
from gemma4_contract.subgraph import Subgraph, answerable, subgraph

POSITIONS = np.arange(3, dtype=np.int32)[None]
HIDDEN, K, V = (np.full((1, 3, 4), x) for x in (1.0, 2.0, 3.0))
PLE = np.arange(24.0).reshape(1, 3, 4, 2)
SIZES = {"B": 2, "L": 3, "N": 4, "P": 5}


def asked(kind: str, **inputs: Any) -> Subgraph:
    return subgraph(kind, {"layer": 2}, {"positions": POSITIONS, **inputs})


def test_a_sub_graph_names_its_inputs_by_taps() -> None:
    gate = "model.layers.2.ple_gated"
    taps = {"model.layers.1.output": HIDDEN, gate: V, "model.ple": PLE}
    donor = {"model.layers.0.self_attn.k_rope": K, "model.layers.0.self_attn.v_norm": V}
    question = asked("subgraph", **taps, **donor)
    assert question.hidden is HIDDEN
    assert dict(question.given) == {gate: V}
    assert question.donated == (K, V)
    assert np.array_equal(question.ple(2), PLE[:, :, 2])


def test_a_layer_and_an_attention_are_sub_graphs_too() -> None:
    layer = asked("layer", hidden=HIDDEN, ple=PLE[:, :, 1], k=K, v=V)
    assert layer.hidden is HIDDEN
    assert not layer.given
    assert layer.donated == (K, V)
    assert np.array_equal(layer.ple(2), PLE[:, :, 1])
    attention = asked("attention", x=V)
    assert not attention.hidden.any()
    assert dict(attention.given) == {"model.layers.2.input_layernorm": V}
    assert attention.donated is None
    assert not attention.ple(2).any()
    assert attention.ple(0) is None
    for question, width in ((asked("layer", hidden=HIDDEN), 2), (layer, 3), (layer, 0)):
        with pytest.raises(ValueError, match="ple: got shape"):
            question.ple(width)


def test_an_input_that_is_missing_is_named() -> None:
    with pytest.raises(KeyError, match=r"model\.layers\.1\.output"):
        asked("subgraph")


def test_what_was_computed_from_another_value_is_no_answer() -> None:
    def name(short: str) -> str:
        return f"model.layers.2.{short}"

    probs, context, projected = (name(f"self_attn.{one}") for one in ("probs", "context", "o_proj"))
    question = asked("subgraph", **{"model.layers.1.output": HIDDEN, probs: K, context: V})
    taps = (probs, context, projected)
    assert answerable(question, taps, {probs, context}) == set(taps)
    assert answerable(question, taps, {context}) == {probs, projected}
    assert answerable(question, taps, {probs}) == {probs, context}
    keys = name("self_attn.k_rope")
    own = asked("subgraph", **{"model.layers.1.output": HIDDEN, keys: K})
    assert answerable(own, taps, {keys}) == set(taps)
    assert answerable(own, taps, ()) == set()  # a layer with keys of its own is its own donor


def test_a_recording_keeps_what_was_computed_and_gives_what_is_given() -> None:
    recording = Recording({"b": K, "c": PLE})
    assert recording("a", HIDDEN) is HIDDEN
    assert recording("b", V) is K
    assert recording("c", V) is V  # of a wrong shape: the rest of a wrong layer may take no other
    assert recording.taps == {"a": HIDDEN, "b": V, "c": V}


def test_pieces_are_kept_call_by_call() -> None:
    pieces = Pieces({"a"})
    for name, value in (("a", K), ("b", V), ("a", V)):
        assert pieces(name, value) is value
    assert pieces.taps.keys() == {"a"}
    assert all(kept is value for kept, value in zip(pieces.taps["a"], (K, V), strict=True))


@pytest.mark.parametrize("layer", [None, 3])
def test_laid_back_undoes_laid_out(layer: int | None) -> None:
    for read in reads_of(text_graph(), layer):
        shape = tuple(np.prod([SIZES.get(letter, 6) for letter in axis.split("*")]) for axis in read.layout)
        there = np.random.default_rng(0).normal(size=shape)
        laid = laid_out(there, read, {**SIZES})
        assert np.array_equal(laid_back(laid, read, shape), there), read.tap
