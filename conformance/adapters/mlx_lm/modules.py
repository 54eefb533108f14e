"""Module questions answered by mlx-lm's own modules and functions, without a checkpoint.

B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim, P per-layer width,
N layers, F feed-forward width, V vocabulary, X experts. Every function takes a case's params and inputs and the
profile's dtype, and answers in that dtype unless stated otherwise. Modules draw initial weights lazily: if they are
replaced before they are evaluated, they cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.activations import gelu_approx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import RMSNorm
from mlx_lm.models import gemma4_text
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.rope_utils import initialize_rope

from conformance.adapters.base import Array, Skip
from conformance.adapters.mlx_arrays import to_mlx
from conformance.adapters.mlx_lm.load import model_args
from conformance.adapters.mlx_lm.taps import dense_combine
from conformance.adapters.module_tree_mlx import MlxTapRecords, reading, standing_in
from gemma4_contract import checkpoint

Params = Mapping[str, Any]
Inputs = Mapping[str, Array]
Answers = dict[str, mx.array]


def _linear(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`nn.Linear` without bias: y L F."""
    return {"y": _projection(to_mlx(inputs["weight"], dtype))(to_mlx(inputs["x"], dtype))}


def _projection(weight: mx.array) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = weight
    return layer


def _rms_norm(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`nn.RMSNorm`, or `RMSNormNoScale` where no weight is given: y L D."""
    x = to_mlx(inputs["x"], dtype)
    if "weight" not in inputs:
        return {"y": gemma4_text.RMSNormNoScale(x.shape[-1], eps=params["eps"])(x)}
    return {"y": _norm(to_mlx(inputs["weight"], dtype), params["eps"])(x)}


def _norm(weight: mx.array, eps: float) -> RMSNorm:
    norm = RMSNorm(weight.shape[0], eps=eps)
    norm.weight = weight
    return norm


def _rope(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`initialize_rope` as the attention calls it, one call per run of consecutive positions: y B H L E."""
    x, positions = to_mlx(inputs["x"], dtype), np.asarray(inputs["positions"])
    scaling = {"rope_type": params["rope_type"], "rope_theta": params["rope_theta"]}
    scaling["partial_rotary_factor"] = params["partial_rotary_factor"]
    rope = initialize_rope(
        dims=x.shape[-1],
        traditional=False,
        base=params["rope_theta"],
        scaling_config=scaling,
        max_position_embeddings=131072,
    )
    breaks = np.flatnonzero(np.any(np.diff(positions, axis=1) != 1, axis=0)) + 1
    starts = [0, *breaks.tolist()]
    stops = [*starts[1:], positions.shape[1]]
    parts = [
        rope(x[:, :, start:stop], offset=mx.array(positions[:, start].astype(np.int32)))
        for start, stop in zip(starts, stops, strict=True)
    ]
    return {"y": mx.concatenate(parts, axis=2)}


def _inv_freq(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """The reciprocals of the wavelengths that ProportionalRoPE hands to its kernel: inv_freq E/2, float32."""
    layer_type = params["layer_type"]
    layer = checkpoint.text_part(params["config"])["layer_types"].index(layer_type)
    rope = gemma4_text.Attention(model_args(params["config"]), layer).rope
    if not hasattr(rope, "_freqs"):
        raise Skip(f"mlx-lm's {type(rope).__name__} of {layer_type} layers keeps no frequencies to read")
    return {"inv_freq": 1.0 / rope._freqs}


def _embedding(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`nn.Embedding`, then times the Python float D**0.5 as the model does: y B L D."""
    table = to_mlx(inputs["table"], dtype)
    return {"y": _table(table)(to_mlx(inputs["ids"], mx.int32)) * table.shape[1] ** 0.5}


def _table(weight: mx.array) -> Embedding:
    table = Embedding(*weight.shape)
    table.weight = weight
    return table


def _ple(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """The two PLE methods of `Gemma4TextModel` on an instance with the given tensors: three taps B L N P."""
    table, projection, norm = (to_mlx(inputs[name], dtype) for name in ("table", "projection", "norm"))
    args = gemma4_text.ModelArgs(
        hidden_size=projection.shape[1],
        num_hidden_layers=params["num_layers"],
        hidden_size_per_layer_input=norm.shape[0],
        vocab_size_per_layer_input=table.shape[0],
        rms_norm_eps=params["eps"],
        num_kv_shared_layers=0,
    )
    model = gemma4_text.Gemma4TextModel(args)
    model.embed_tokens_per_layer.weight = table
    model.per_layer_model_projection.weight = projection
    model.per_layer_projection_norm.weight = norm
    records = MlxTapRecords()
    tokens = model._get_per_layer_inputs(to_mlx(inputs["ids"], mx.int32))
    normed = "model.per_layer_projection_norm"
    with standing_in(model, "per_layer_projection_norm", reading(records, {normed: lambda _, result: result})):
        ple = model._project_per_layer_inputs(to_mlx(inputs["h"], dtype), tokens)
    return {"model.embed_tokens_per_layer": tokens, "model.ple": ple, **records.joined()}


def _attention_core(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`scaled_dot_product_attention` with scale 1 under a boolean mask made from positions: context B L H*E."""
    q, k, v = (to_mlx(inputs[name], dtype) for name in ("q", "k", "v"))
    distance = inputs["q_positions"].astype(np.int64)[:, :, None] - inputs["k_positions"][:, None, :]  # B L S
    visible = distance >= 0
    if params["window"] is not None:
        visible &= distance < params["window"]
    mask = mx.array(visible[:, None])  # B 1 L S
    context = scaled_dot_product_attention(q, k, v, cache=None, scale=1.0, mask=mask)  # B H L E
    return {"context": context.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[2], -1)}


def _shared_kv_donors(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`previous_kvs` of a model that is built and never evaluated: donors N, int32."""
    model = gemma4_text.Gemma4TextModel(model_args(params["config"]))
    return {"donors": mx.array(model.previous_kvs, mx.int32)}


def _mlp(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`MLP`: y B L D, and act B L F, the input of its last projection."""
    gate = to_mlx(inputs["gate"], dtype)
    args = gemma4_text.ModelArgs(hidden_size=gate.shape[1], intermediate_size=gate.shape[0], num_kv_shared_layers=0)
    mlp = gemma4_text.MLP(args)
    for name in ("gate", "up", "down"):
        mlp[f"{name}_proj"].weight = to_mlx(inputs[name], dtype)
    records = MlxTapRecords()
    with standing_in(mlp, "down_proj", reading(records, {"act": lambda args, _: args[0]})):
        y = mlp(to_mlx(inputs["x"], dtype))
    return {"y": y, **records.joined()}


def _gelu_tanh(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`nn.gelu_approx`: y L."""
    return {"y": gelu_approx(to_mlx(inputs["x"], dtype))}


def _router(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`Router`: its projection's logits and its choice made dense, both B L X."""
    proj = to_mlx(inputs["proj"], dtype)
    args = gemma4_text.ModelArgs(
        hidden_size=proj.shape[1],
        num_experts=proj.shape[0],
        top_k_experts=params["top_k"],
        rms_norm_eps=params["eps"],
    )
    router = gemma4_text.Router(args)
    router.proj.weight = proj
    router.scale = to_mlx(inputs["scale"], dtype)
    router.per_expert_scale = to_mlx(inputs["per_expert_scale"], dtype)
    records = MlxTapRecords()
    with standing_in(router, "proj", reading(records, {"proj": lambda _, result: result})):
        chosen = router(to_mlx(inputs["h"], dtype))
    return {"combine": dense_combine(chosen, proj.shape[0]), **records.joined()}


def _experts(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`Experts`, its choice read off the non-zeros of `combine`: y B L D."""
    combine = inputs["combine"]
    top_k = int(np.count_nonzero(combine, axis=-1).max())
    chosen = np.argsort(combine == 0, axis=-1, kind="stable")[..., :top_k]
    weights = np.take_along_axis(combine, chosen, axis=-1)
    gate_up, down = to_mlx(inputs["gate_up"], dtype), to_mlx(inputs["down"], dtype)
    args = gemma4_text.ModelArgs(
        hidden_size=down.shape[1], moe_intermediate_size=down.shape[2], num_experts=down.shape[0]
    )
    experts = gemma4_text.Experts(args)
    switch = experts.switch_glu
    switch.gate_proj.weight, switch.up_proj.weight = map(mx.contiguous, mx.split(gate_up, 2, axis=-2))
    switch.down_proj.weight = down
    return {"y": experts(to_mlx(inputs["x"], dtype), to_mlx(chosen, mx.uint32), to_mlx(weights, dtype))}


def _softcap(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`logit_softcap`: y B L V."""
    return {"y": gemma4_text.logit_softcap(params["cap"], to_mlx(inputs["x"], dtype))}


def _long_sum(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`mx.sum` over L: y B."""
    return {"y": mx.sum(to_mlx(inputs["x"], dtype), axis=-1)}


def _exp_tanh(params: Params, inputs: Inputs, dtype: mx.Dtype) -> Answers:
    """`mx.exp` and `mx.tanh`: both L."""
    x = to_mlx(inputs["x"], dtype)
    return {"exp": mx.exp(x), "tanh": mx.tanh(x)}


MODULES: dict[str, Callable[[Params, Inputs, mx.Dtype], Answers]] = {
    "attention_core": _attention_core,
    "shared_kv_donors": _shared_kv_donors,
    "linear": _linear,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "inv_freq": _inv_freq,
    "embedding": _embedding,
    "ple": _ple,
    "mlp": _mlp,
    "gelu_tanh": _gelu_tanh,
    "router": _router,
    "experts": _experts,
    "softcap": _softcap,
    "long_sum": _long_sum,
    "exp_tanh": _exp_tanh,
}
