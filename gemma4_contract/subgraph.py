"""Sub-graphs of a layer: from the values of these taps compute those.

B batch, L query length, S key length, D hidden, K key/value heads, E head dim, P per-layer width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma4_contract import expand
from gemma4_contract.graph import text_graph
from gemma4_contract.tensors import Array

POSITIONS = "positions"
SUBGRAPH_KINDS = ("subgraph", "layer", "attention")
"""The kinds of cases that are sub-graphs; `layer` and `attention` have short names for their inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgraph:
    """One pass of a layer, whose own taps are replaced by the values that are given for them."""

    layer: int
    positions: Array
    """I32 [B, L]."""
    hidden: Array
    """What enters the layer, [B, L, D]; zeros where nothing that is asked depends on it."""
    given: Mapping[str, Array]
    """Full names of the layer's own taps -> what the pass goes on with after it has shown its own value."""
    donated: tuple[Array, Array] | None
    """The donor's keys and values [B, K, S, E]; None where the layer has its own."""
    slice_of_ple: Array | None
    """The layer's slice of `model.ple`, [B, L, P]; None where it is not given."""
    attention_alone: bool = False
    """Whether nothing outside the attention is asked, so that zeros may stand for the hidden state and the slice."""

    def ple(self, width: int) -> Array | None:
        """The slice for a model whose PLE have this width, 0 for none.

        ValueError when the question has a slice that the model has no use for, or lacks one that it needs.
        """
        got, wanted = self.slice_of_ple, (*self.positions.shape, width) if width else None
        if got is None and wanted is not None and self.attention_alone:
            return np.zeros(wanted, np.float32)
        if (None if got is None else got.shape) != wanted:
            raise ValueError(f"ple: got shape {None if got is None else got.shape}, expected {wanted}")
        return got


def subgraph(kind: str, params: Mapping[str, Any], inputs: Mapping[str, Array]) -> Subgraph:
    """The sub-graph that a case of one of SUBGRAPH_KINDS asks for; KeyError for an input that is missing.

    `subgraph` names its inputs by taps, `layer` has `hidden`, `ple`, `k` and `v`, and `attention` has `x` (the tap
    `input_layernorm`), `k` and `v`. All have `positions`.
    """
    layer = int(params["layer"])
    if kind == "subgraph":
        return _of_taps(layer, inputs)
    alone = kind == "attention"
    return Subgraph(
        layer=layer,
        positions=inputs[POSITIONS],
        hidden=np.zeros_like(inputs["x"]) if alone else inputs["hidden"],
        given={f"model.layers.{layer}.input_layernorm": inputs["x"]} if alone else {},
        donated=(inputs["k"], inputs["v"]) if "k" in inputs else None,
        slice_of_ple=inputs.get("ple"),
        attention_alone=alone,
    )


def _of_taps(layer: int, inputs: Mapping[str, Array]) -> Subgraph:
    graph = text_graph()
    entering = expand.entering(graph, layer)
    lent = {name.rpartition(".")[2]: inputs[name] for name in inputs if graph.layer_of(name) not in (None, layer)}
    return Subgraph(
        layer=layer,
        positions=inputs[POSITIONS],
        hidden=inputs[entering],
        given={name: value for name, value in inputs.items() if graph.layer_of(name) == layer},
        donated=(lent["k_rope"], lent["v_norm"]) if "k_rope" in lent else None,
        slice_of_ple=inputs["model.ple"][:, :, layer] if "model.ple" in inputs else None,
    )


def answerable(question: Subgraph, taps: Collection[str], replaced: Collection[str]) -> set[str]:
    """Those of the taps that a pass computed from the given values alone; `replaced` are the given taps that it used.

    A port that cannot put a given value in goes on with its own: what it computes from that is no answer.
    """
    strayed = question.given.keys() - set(replaced)
    unanswered = set()
    for node in text_graph().nodes:  # in execution order
        name = node.named(question.layer)
        sources = (source.tap if question.donated else source.tap.replace("{donor}", "{i}") for source in node.sources)
        if not strayed.isdisjoint(source.replace("{i}", str(question.layer)) for source in sources):
            unanswered.add(name)
            if name not in replaced:
                strayed.add(name)
    return set(taps) - unanswered
