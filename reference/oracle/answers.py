"""The oracle's answer to a case of every kind: the taps of docs/FIXTURES.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from reference import weights
from reference.config import Rope, TextConfig
from reference.oracle import attention, embedding, logits, mlp, moe, norm, plans, ple, rope
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues

Inputs = Mapping[str, Array]
Params = Mapping[str, Any]
Taps = dict[str, Array]


def forward(decoder: Decoder, inputs: Inputs, steps: list[int] | None, want: Collection[str] | None = None) -> Taps:
    """Kind `forward`."""
    return plans.run(decoder, inputs["ids"], inputs["positions"], valid=inputs.get("valid"), steps=steps, want=want)


def layer(decoder: Decoder, params: Params, inputs: Inputs) -> Taps:
    """Kind `layer`: one layer on a given hidden state."""
    taps: Taps = {}
    hidden, ple_slice = decoder.ar.cast(inputs["hidden"]), inputs.get("ple")
    decoder.layer(
        params["layer"],
        hidden,
        inputs["positions"],
        np.ones(hidden.shape[:2], bool),
        layer_input=None if ple_slice is None else decoder.ar.cast(ple_slice),
        shared=_shared(decoder, inputs),
        record=taps.__setitem__,
    )
    return taps


def layer_attention(decoder: Decoder, params: Params, inputs: Inputs) -> Taps:
    """Kind `attention`: the attention of one layer on its normalised input."""
    taps: Taps = {}
    x = decoder.ar.cast(inputs["x"])
    decoder.attention(
        params["layer"],
        x,
        inputs["positions"],
        np.ones(x.shape[:2], bool),
        shared=_shared(decoder, inputs),
        record=taps.__setitem__,
    )
    return taps


def _shared(decoder: Decoder, inputs: Inputs) -> KeyValues | None:
    if "k" not in inputs:
        return None
    positions = inputs["positions"]
    return KeyValues(
        keys=decoder.ar.cast(inputs["k"]),
        values=decoder.ar.cast(inputs["v"]),
        positions=positions,
        valid=np.ones(positions.shape, bool),
    )


def module(kind: str, params: Params, inputs: Inputs, ar: Arithmetic) -> Taps:
    """Every other kind: one module on given inputs, float inputs cast to the arithmetic's dtype."""
    cast = {name: ar.cast(x) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    return _MODULES[kind](params, cast, ar)


def _linear(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": ar.linear(x["x"], x["weight"])}


def _rms_norm(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": norm.rms_norm(x["x"], x.get("weight"), params["eps"], ar)}


def _rope(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    settings = Rope(
        theta=params["theta"], rotary=params["rotary"], partial_rotary_factor=params["partial_rotary_factor"]
    )
    frequencies = rope.inverse_frequencies(x["x"].shape[-1], settings, ar)
    return {"y": rope.rotate(x["x"], x["positions"], frequencies)}


def _inv_freq(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    config = TextConfig.from_dict(params["config"])
    index = config.layer_types.index(params["layer_type"])
    return {"inv_freq": rope.inverse_frequencies(config.head_dim_of(index), config.rope_of(index), ar)}


def _shared_kv_donors(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    config = TextConfig.from_dict(params["config"])
    return {"donors": np.array([config.kv_donor(i) for i in range(config.num_hidden_layers)], np.int32)}


def _embedding(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": embedding.embed(x["ids"], x["table"], ar)}


def _ple(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    taps: Taps = {}
    ple.per_layer_inputs(
        x["ids"],
        x["h"],
        x["table"],
        x["projection"],
        x["norm"],
        eps=params["eps"],
        num_layers=params["num_layers"],
        ar=ar,
        record=taps.__setitem__,
    )
    return taps


def _ple_index(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    row, layer_index = int(params["id"]) * params["num_layers"], int(params["layer"])
    offset = (row + layer_index) * params["width"] + params["channel"]
    return {"offset": np.frombuffer(str(offset).encode(), np.uint8)}


def _attention_core(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    k_positions = x["k_positions"]
    seen = np.ones(k_positions.shape, bool)
    mask = attention.attention_mask(x["q_positions"], k_positions, seen, params["window"])
    return {"context": attention.attend(x["q"], x["k"], x["v"], mask, ar)[0]}


def _mlp(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    act = mlp.activation(x["x"], x["gate"], x["up"], ar)
    return {"act": act, "y": ar.linear(act, x["down"])}


def _gelu_tanh(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": mlp.gelu_tanh(x["x"], ar)}


def _router(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    proj = moe.router_logits(x["h"], x["scale"], x["proj"], params["eps"], ar)
    return {"proj": proj, "combine": moe.combine_weights(proj, x["per_expert_scale"], params["top_k"], ar)}


def _experts(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": moe.experts(x["x"], x["combine"], x["gate_up"], x["down"], ar)}


def _softcap(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": logits.softcap(x["x"], params["cap"], ar)}


def _long_sum(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"y": ar.sum(x["x"])[..., 0]}


def _exp_tanh(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {"exp": np.exp(x["x"]), "tanh": np.tanh(x["x"])}


def _echo(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    return {**x, "sum": x["ids"].sum(1, dtype=np.int32)}


def _weights(params: Params, x: Inputs, ar: Arithmetic) -> Taps:
    name, first, count = params["name"], params["first"], params["count"]
    hashed = weights.q(name, first, first + count)
    return {"q": hashed.astype(np.int32), "y": ar.cast(_FORMULAS[params["formula"]](params))}


_FORMULAS: Mapping[str, Callable[[Params], Array]] = {
    "matrix": lambda p: (
        weights.q(p["name"], p["first"], p["first"] + p["count"]) * 2.0 ** -weights.matrix_exponent(p["fan_in"])
    ),
    "norm": lambda p: weights.norm(p["name"], p["count"], p["base"]),
    "signed-norm": lambda p: weights.signed_norm(p["name"], p["count"], p["base"]),
    "per-expert-scale": lambda p: weights.per_expert_scale(p["name"], p["count"]),
}
"""Only matrices are so large that their first element is not the first that is asked for."""

_MODULES: Mapping[str, Callable[[Params, Inputs, Arithmetic], Taps]] = {
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
