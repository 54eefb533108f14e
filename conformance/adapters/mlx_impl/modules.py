"""Module questions answered by mlx_impl's functions, without a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from conformance.adapters.mlx_arrays import to_numpy
from gemma4_contract.recording import Recording
from mlx_impl import parse_config
from mlx_impl.model import attention, decoder, embedding, mlp, moe, norms, params, ple, rope

Params = Mapping[str, Any]
Inputs = Mapping[str, mx.array]
Taps = dict[str, mx.array]


def _linear(p: Params, x: Inputs) -> Taps:
    return {"y": params.project(x["x"], x["weight"])}


def _rms_norm(p: Params, x: Inputs) -> Taps:
    return {"y": norms.rms_norm(x["x"], x.get("weight"), p["eps"])}


def _rope(p: Params, x: Inputs) -> Taps:
    frequencies = rope.inverse_frequencies(
        x["x"].shape[-1], p["rope_theta"], p["rope_type"], p["partial_rotary_factor"]
    )
    return {"y": rope.apply_rope(x["x"], x["positions"], frequencies)}


def _inv_freq(p: Params, x: Inputs) -> Taps:
    config = parse_config(p["config"])
    return {"inv_freq": rope.layer_frequencies(config, config.layer_types.index(p["layer_type"]))}


def _shared_kv_donors(p: Params, x: Inputs) -> Taps:
    return {"donors": mx.array(parse_config(p["config"]).kv_donors(), dtype=mx.int32)}


def _embedding(p: Params, x: Inputs) -> Taps:
    return {"y": embedding.scaled_embedding(x["ids"], x["table"])}


def _ple(p: Params, x: Inputs) -> Taps:
    taps: Taps = {}
    ple.per_layer_inputs(
        x["ids"], x["h"], x["table"], x["projection"], x["norm"], p["eps"], p["num_layers"], Recording(taps=taps)
    )
    return taps


def _attention_core(p: Params, x: Inputs) -> Taps:
    mask = attention.attention_mask(x["q_positions"], x["k_positions"], None, p["window"])
    return {"context": attention.attention_context(attention.attention_probs(x["q"], x["k"], mask), x["v"])}


def _mlp(p: Params, x: Inputs) -> Taps:
    taps: Taps = {}
    y = mlp.gated_mlp(x["x"], x["gate"], x["up"], x["down"], Recording(taps=taps))
    return {"act": taps["mlp.act"], "y": y}


def _gelu_tanh(p: Params, x: Inputs) -> Taps:
    return {"y": mlp.gelu_tanh(x["x"])}


def _router(p: Params, x: Inputs) -> Taps:
    taps: Taps = {}
    moe.route(x["h"], x["scale"], x["proj"], x["per_expert_scale"], p["top_k"], p["eps"], Recording(taps=taps))
    return {"proj": taps["router.proj"], "combine": taps["router.combine"]}


def _experts(p: Params, x: Inputs) -> Taps:
    combine = x["combine"]  # [B, L, X], zero where not chosen
    top_k = int(to_numpy((combine != 0).sum(axis=-1)).max())
    indices = mx.argsort(combine == 0, axis=-1)[..., :top_k]  # the chosen first
    weights = mx.take_along_axis(combine, indices, axis=-1)
    return {"y": moe.apply_experts(x["x"], indices, weights, x["gate_up"], x["down"])}


def _softcap(p: Params, x: Inputs) -> Taps:
    return {"y": decoder.softcap(x["x"], p["cap"])}


def _long_sum(p: Params, x: Inputs) -> Taps:
    return {"y": x["x"].sum(axis=-1)}


def _exp_tanh(p: Params, x: Inputs) -> Taps:
    return {"exp": mx.exp(x["x"]), "tanh": mx.tanh(x["x"])}


MODULES: Mapping[str, Callable[[Params, Inputs], Taps]] = {
    "linear": _linear,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "inv_freq": _inv_freq,
    "shared_kv_donors": _shared_kv_donors,
    "embedding": _embedding,
    "ple": _ple,
    "attention_core": _attention_core,
    "mlp": _mlp,
    "gelu_tanh": _gelu_tanh,
    "router": _router,
    "experts": _experts,
    "softcap": _softcap,
    "long_sum": _long_sum,
    "exp_tanh": _exp_tanh,
}
