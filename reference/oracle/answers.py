"""The oracle's answer to a case of every kind: the taps of docs/FIXTURES.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from gemma4_contract.recording import Recording
from gemma4_contract.subgraph import Subgraph
from reference import weights
from reference.config import Rope, TextConfig
from reference.oracle import plans
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.oracle.ops import Ops
from reference.oracle.oracle import ORACLE, Oracle
from reference.taps import Recorder

Inputs = Mapping[str, Array]
Params = Mapping[str, Any]
Taps = dict[str, Array]


def forward(decoder: Decoder, inputs: Inputs, steps: list[int] | None, want: Collection[str] | None = None) -> Taps:
    """Kind `forward`."""
    return plans.run(decoder, inputs["ids"], inputs["positions"], valid=inputs.get("valid"), steps=steps, want=want)


def layer(decoder: Decoder, question: Subgraph) -> Taps:
    """The kinds of SUBGRAPH_KINDS: one pass of a layer that continues with the given values."""
    recording = Recording({name: decoder.ar.cast(value) for name, value in question.given.items()})
    layer_pass(decoder, question, recording)
    return recording.taps


def layer_pass(decoder: Decoder, question: Subgraph, record: Recorder) -> None:
    """The pass of a layer that a sub-graph asks for; it continues with what `record` returns."""
    cast, shape = decoder.ar.cast, question.positions.shape
    ple = question.ple(decoder.config.hidden_size_per_layer_input)
    decoder.layer(
        question.layer,
        cast(question.hidden),
        question.positions,
        np.ones(shape, bool),
        layer_input=None if ple is None else cast(ple),
        shared=_lent(decoder, question),
        record=record,
    )


def _lent(decoder: Decoder, question: Subgraph) -> KeyValues | None:
    if question.donated is None:
        return None
    keys, values = (decoder.ar.cast(value) for value in question.donated)
    seen = np.ones(question.positions.shape, bool)
    return KeyValues(keys=keys, values=values, positions=question.positions, valid=seen)


def module(kind: str, params: Params, inputs: Inputs, ar: Arithmetic, oracle: Oracle = ORACLE) -> Taps:
    """Every other kind: one module on given inputs, float inputs cast to the arithmetic's dtype."""
    cast = {name: ar.cast(x) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    if "config" in params:
        params = {**params, "config": oracle.config.from_dict(params["config"])}
    return _MODULES[kind](params, cast, oracle.ops(ar))


def _linear(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.ar.linear(x["x"], x["weight"])}


def _rms_norm(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.rms_norm(x["x"], x.get("weight"), params["eps"])}


def _rope(params: Params, x: Inputs, ops: Ops) -> Taps:
    settings = Rope(
        rope_theta=params["rope_theta"],
        rope_type=params["rope_type"],
        partial_rotary_factor=params["partial_rotary_factor"],
    )
    frequencies = ops.inverse_frequencies(x["x"].shape[-1], settings)
    return {"y": ops.rope(x["x"], x["positions"], frequencies)}


def _inv_freq(params: Params, x: Inputs, ops: Ops) -> Taps:
    config: TextConfig = params["config"]
    index = config.layer_types.index(params["layer_type"])
    return {"inv_freq": ops.inverse_frequencies(config.head_dim_of(index), config.rope_of(index))}


def _shared_kv_donors(params: Params, x: Inputs, ops: Ops) -> Taps:
    config: TextConfig = params["config"]
    return {"donors": np.array([config.kv_donor(i) for i in range(config.num_hidden_layers)], np.int32)}


def _embedding(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.embedding(x["ids"], x["table"])}


def _ple(params: Params, x: Inputs, ops: Ops) -> Taps:
    recording: Recording[Array] = Recording()
    ops.per_layer_inputs(
        x["ids"],
        x["h"],
        x["table"],
        x["projection"],
        x["norm"],
        eps=params["eps"],
        num_layers=params["num_layers"],
        record=recording,
    )
    return recording.taps


def _ple_index(params: Params, x: Inputs, ops: Ops) -> Taps:
    place = int(params["id"]), int(params["layer"]), params["channel"]
    offset = ops.ple_index(*place, num_layers=params["num_layers"], width=params["width"])
    return {"offset": np.frombuffer(str(offset).encode(), np.uint8)}


def _attention_core(params: Params, x: Inputs, ops: Ops) -> Taps:
    k_positions = x["k_positions"]
    seen = np.ones(k_positions.shape, bool)
    mask = ops.attention_mask(x["q_positions"], k_positions, seen, params["window"])
    return {"context": ops.attention_context(ops.attention_probs(x["q"], x["k"], mask), x["v"])}


def _mlp(params: Params, x: Inputs, ops: Ops) -> Taps:
    act = ops.activation(x["x"], x["gate"], x["up"])
    return {"act": act, "y": ops.ar.linear(act, x["down"])}


def _gelu_tanh(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.gelu_tanh(x["x"])}


def _router(params: Params, x: Inputs, ops: Ops) -> Taps:
    proj = ops.router_logits(x["h"], x["scale"], x["proj"], params["eps"])
    return {"proj": proj, "combine": ops.combine_weights(proj, x["per_expert_scale"], params["top_k"])}


def _experts(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.experts(x["x"], x["combine"], x["gate_up"], x["down"])}


def _softcap(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.softcap(x["x"], params["cap"])}


def _long_sum(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"y": ops.ar.sum(x["x"])[..., 0]}


def _exp_tanh(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {"exp": np.exp(x["x"]), "tanh": np.tanh(x["x"])}


def _echo(params: Params, x: Inputs, ops: Ops) -> Taps:
    return {**x, "sum": x["ids"].sum(1, dtype=np.int32)}


def _weights(params: Params, x: Inputs, ops: Ops) -> Taps:
    name, first, count = params["name"], params["first"], params["count"]
    hashed = weights.q(name, first, first + count)
    return {"q": hashed.astype(np.int32), "y": ops.ar.cast(_FORMULAS[params["formula"]](params))}


_FORMULAS: Mapping[str, Callable[[Params], Array]] = {
    "matrix": lambda p: (
        weights.q(p["name"], p["first"], p["first"] + p["count"]) * 2.0 ** -weights.matrix_exponent(p["fan_in"])
    ),
    "norm": lambda p: weights.norm(p["name"], p["count"], p["base"]),
    "signed-norm": lambda p: weights.signed_norm(p["name"], p["count"], p["base"]),
    "per-expert-scale": lambda p: weights.per_expert_scale(p["name"], p["count"]),
}
"""Only matrices are so large that a case begins after their first element."""

_MODULES: Mapping[str, Callable[[Params, Inputs, Ops], Taps]] = {
    "linear": _linear,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "inv_freq": _inv_freq,
    "shared_kv_donors": _shared_kv_donors,
    "embedding": _embedding,
    "ple": _ple,
    "ple_index": _ple_index,
    "attention_core": _attention_core,
    "mlp": _mlp,
    "gelu_tanh": _gelu_tanh,
    "router": _router,
    "experts": _experts,
    "softcap": _softcap,
    "long_sum": _long_sum,
    "exp_tanh": _exp_tanh,
    "echo": _echo,
    "weights": _weights,
}

MODULE_KINDS = tuple(_MODULES)
