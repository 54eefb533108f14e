"""The graph is true: each node is the function that it names, of what it declares and of nothing else.

Inputs, weights and configuration fields reach a node's function from the graph's declarations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from gemma4_contract import expand
from gemma4_contract.graph import text_graph
from gemma4_contract.node import Input, Node
from gemma4_contract.recording import Recording
from gemma4_contract.tensors import Array
from reference.cases.forward import padded_inputs
from reference.cases.layer import layer_kinds
from reference.config import TextConfig
from reference.export.checkpoint import model_weights
from reference.inputs import token_ids
from reference.models import MODELS
from reference.oracle.arithmetic import F64
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.taps import Recorder

GRAPH = text_graph()
LENGTH, PADS = 11, [0, 3]  # more than the window, and a row with pads
each_model = pytest.mark.parametrize("model", MODELS)


# --- the functions by the names that nodes give them


OPS = Ops(F64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a node's function is given: inputs and weights in the order of the graph, the configuration, sizes."""

    x: Sequence[Array]
    w: Sequence[Array]
    config: Any
    sizes: Mapping[str, int]
    layer: int


def _heads(call: Call) -> Array:
    y = F64.linear(call.x[0], call.w[0])
    return y.reshape(*y.shape[:2], -1, call.sizes["E"]).transpose(0, 2, 1, 3)


def _rope(call: Call) -> Array:
    frequencies = OPS.inverse_frequencies(call.sizes["E"], call.config.rope_of(call.layer))
    return OPS.rope(call.x[0], call.x[1], frequencies)


def _probs(call: Call) -> Array:
    q, _, k, positions, valid = call.x
    mask = OPS.attention_mask(positions, positions, valid, call.config.window_of(call.layer))
    return OPS.attention_probs(q, k, mask)


def _softcap(call: Call) -> Array:
    cap = call.config.final_logit_softcapping
    return call.x[0] if cap is None else OPS.softcap(call.x[0], cap)


FUNCTIONS: Mapping[str, Callable[[Call], Array]] = {
    "embedding": lambda c: OPS.embedding(c.x[0], c.w[0]),
    "token_rows": lambda c: OPS.token_rows(c.x[0], c.w[0], c.sizes["N"]),
    "context_projection": lambda c: OPS.context_projection(c.x[0], *c.w, c.config.rms_norm_eps, c.sizes["N"]),
    "combine_rows": lambda c: OPS.combine_rows(c.x[1], c.x[0]),
    "rms_norm": lambda c: OPS.rms_norm(sum(c.x), c.w[0], c.config.rms_norm_eps),
    "head_norm": lambda c: OPS.rms_norm(_heads(c), c.w[1] if c.w[1:] else None, c.config.rms_norm_eps),
    "rope": _rope,
    "attention_probs": _probs,
    "read": lambda c: c.x[0],
    "attention_context": lambda c: OPS.attention_context(c.x[2], c.x[4]),
    "linear": lambda c: F64.linear(c.x[0], c.w[0]),
    "add": lambda c: c.x[0] + c.x[1],
    "activation": lambda c: OPS.activation(c.x[0], *c.w),
    "router_logits": lambda c: OPS.router_logits(c.x[0], *c.w, c.config.rms_norm_eps),
    "combine_weights": lambda c: OPS.combine_weights(c.x[0], c.w[0], c.config.top_k_experts),
    "experts": lambda c: OPS.experts(*c.x, *c.w),
    "per_layer_gate": lambda c: OPS.per_layer_gate(c.x[0], c.x[1][:, :, c.layer], c.w[0]),
    "layer_scalar": lambda c: sum(c.x) * c.w[0],
    "softcap": _softcap,
}


class Watched:
    """A configuration that notes which fields are read, by its own methods as well."""

    def __init__(self, config: TextConfig, read: set[str]) -> None:
        self._config, self._read = config, read

    def __getattr__(self, name: str) -> Any:
        of_class = getattr(type(self._config), name, None)
        if name in TextConfig.__slots__:
            self._read.add(name)
            return getattr(self._config, name)
        return of_class.__get__(self)  # type: ignore[union-attr]  # a method or property


# --- a pass of a model, and its nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """A node in a layer of a model."""

    node: Node
    layer: int | None
    config: TextConfig

    @property
    def name(self) -> str:
        return self.node.named(self.layer)

    def source(self, one: Input) -> str:
        return expand.named(GRAPH, one.tap, self.config, self.layer)

    @property
    def sources(self) -> dict[str, Input]:
        """The inputs by their full names."""
        held = (one for one in self.node.sources if expand.holds(one.when, self.config, self.layer))
        return {self.source(one): one for one in held}

    @property
    def weights(self) -> list[str]:
        held = (one for one in self.node.weights if expand.holds(one.when, self.config, self.layer))
        return [expand.named(GRAPH, one.name, self.config, self.layer) for one in held]

    @property
    def between(self) -> dict[str, At]:
        """By the full names of inputs that act through another tap: that tap's node."""
        through = {name: one.through for name, one in self.sources.items() if one.through is not None}
        return {
            name: At(node=GRAPH.by_template[tap], layer=self.layer, config=self.config) for name, tap in through.items()
        }

    def value(self, values: Mapping[str, Array], weights: Mapping[str, Array], read: set[str] | None = None) -> Array:
        """The node's function of the values that it declares."""
        call = Call(
            x=[values[name] for name in self.sources],
            w=[weights[name] for name in self.weights],
            config=Watched(self.config, set() if read is None else read),
            sizes=expand.sizes(self.config, self.layer),
            layer=0 if self.layer is None else self.layer,
        )
        return FUNCTIONS[self.node.function](call)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """A model's weights, the inputs of a pass, and every tap of it."""

    config: TextConfig
    weights: Mapping[str, Array]
    inputs: Mapping[str, Array]
    taps: dict[str, Array] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Array]:
        return {**self.inputs, **self.taps}

    @property
    def nodes(self) -> list[At]:
        return [At(node=node, layer=layer, config=self.config) for node, layer in expand.nodes_of(GRAPH, self.config)]

    def run(self, inputs: Mapping[str, Array], record: Recorder) -> None:
        decoder = Decoder(self.config, self.weights)
        decoder.forward(inputs["ids"], inputs["positions"], inputs["valid"].astype(bool), record=record)


@cache
def whole(model: str) -> Pass:
    config = MODELS[model].config
    inputs = padded_inputs(token_ids(f"graph/{model}#ids", LENGTH, config.vocab_size), PADS)
    made = Pass(config=config, weights=model_weights(MODELS[model]), inputs=inputs)
    made.run(inputs, Recording(taps=made.taps))
    return made


def same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and float(np.abs(a - b).max()) <= 1e-12 * max(1.0, float(np.abs(b).max()))


def moved(a: Array, b: Array) -> bool:
    """Far more than rounding."""
    return float(np.abs(a - b).max()) > 1e-6 * float(np.abs(b).max())


def shaken(name: str, value: Array, config: TextConfig, row: int | None = None) -> Array:
    """Other values instead of these, all of them or those of one row of L."""
    rng = np.random.default_rng(len(name))
    if name == "ids":
        other = (value + 1) % config.vocab_size
    elif name == "positions":
        other = value[:, ::-1].copy()  # also where there is no window, order decides
    elif name == "valid":
        other = 1 - value
    else:
        other = value + rng.standard_normal(value.shape) * (0.3 * float(np.abs(value).max()))
    if row is None:
        return other
    axis = 1 if name in ("ids", "positions", "valid") else GRAPH.length_axis(name)
    changed, cut = value.copy(), (slice(None),) * axis + (row,)
    changed[cut] = other[cut] + (1 if name == "positions" else 0)
    return changed


# --- 1. each node's function on golden inputs gives the golden node


@each_model
def test_the_function_of_every_node_gives_the_node(model: str) -> None:
    made = whole(model)
    assert [at.name for at in made.nodes] == list(made.taps)
    for at in made.nodes:
        assert same(at.value(made.values, made.weights), made.taps[at.name]), at.name


def test_every_function_is_one_that_a_node_names() -> None:
    assert {node.function for node in GRAPH.nodes} == FUNCTIONS.keys()


@pytest.mark.parametrize("node", GRAPH.nodes, ids=lambda node: node.short)
def test_a_node_declares_the_fields_of_the_configuration_that_its_function_reads(node: Node) -> None:
    read: set[str] = set()
    for made in map(whole, MODELS):
        for at in made.nodes:
            if at.node is node:
                at.value(made.values, made.weights, read)
    assert read == set(node.config)


# --- 2. what is declared moves the node, and nothing else does


def with_between(at: At, values: Mapping[str, Array], changed: str, made: Pass) -> dict[str, Array]:
    """The values, with the taps computed again that a changed input acts through, one after the other."""
    between = at.between.get(changed)
    if between is None:
        return dict(values)
    values = with_between(between, values, changed, made)
    return {**values, between.name: between.value(values, made.weights)}


@each_model
def test_each_declared_input_and_weight_moves_the_node(model: str) -> None:
    made = whole(model)
    for at in made.nodes:
        golden = made.taps[at.name]
        for name in at.sources:
            values = {**made.values, name: shaken(name, made.values[name], made.config)}
            assert moved(at.value(with_between(at, values, name, made), made.weights), golden), (at.name, name)
        for name in at.weights:
            weights = {**made.weights, name: shaken(name, made.weights[name], made.config)}
            assert moved(at.value(made.values, weights), golden), (at.name, name)


@cache
def noise(made: Pass) -> dict[str, Array]:
    return {name: shaken(name, value, made.config) for name, value in made.taps.items()}


class _Reached(Exception):
    """The pass came to the node that is asked about."""


def intervened(made: Pass, at: At, pinned: bool) -> Array:
    """The node in a pass of the oracle in which every tap before it is overwritten: by noise, those that it declares by
    their golden values, if they are `pinned`. The inputs of the pass that it does not declare are others as well; those
    of a tap that it takes inputs through are declared with it.
    """
    declared = {*at.sources, *(name for one in at.between.values() for name in one.sources)} if pinned else set()
    found: list[Array] = []

    def overwrite(name: str, value: Array) -> Array:
        if name == at.name:
            found.append(value)
            raise _Reached
        return made.taps[name] if name in declared else noise(made)[name]

    inputs = {name: x if name in declared else shaken(name, x, made.config) for name, x in made.inputs.items()}
    with np.errstate(all="ignore"), pytest.raises(_Reached):
        made.run(inputs, overwrite)
    return found[0]


@each_model
def test_nothing_that_is_not_declared_moves_a_node(model: str) -> None:
    """In a layer of every kind, and outside the layers."""
    made = whole(model)
    layers = {None, 0, *layer_kinds(made.config).values()}
    for at in (at for at in made.nodes if at.layer in layers):
        assert same(intervened(made, at, pinned=True), made.taps[at.name]), at.name
        assert moved(intervened(made, at, pinned=False), made.taps[at.name]), at.name  # what is overwritten is used


@each_model
def test_rows_move_alone_where_the_graph_says_so(model: str) -> None:
    made, row = whole(model), LENGTH - 4
    for at in made.nodes:
        axis, golden = GRAPH.length_axis(at.name), made.taps[at.name]
        others = set()
        for name, source in at.sources.items():
            if source.through is None:
                values = {**made.values, name: shaken(name, made.values[name], made.config, row)}
                got = at.value(values, made.weights)
                rows = {i for i in range(LENGTH) if moved(got.take(i, axis), golden.take(i, axis))}
                assert at.node.rows == "mixes" or rows == {row}, (at.name, name)
                others |= rows - {row}
        assert bool(others) == (at.node.rows == "mixes"), at.name
