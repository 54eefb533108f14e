"""Module questions answered by transformers' own modules and functions, without a checkpoint.

B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim, P per-layer width,
N layers, F feed-forward width, V vocabulary, X experts. Modules are made on the meta device, so nothing is initialised,
and take the case's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import Module
from torch.nn.functional import linear
from transformers import Gemma4TextConfig
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gemma4 import modeling_gemma4 as gemma4

from reference.transformers_model.arrays import TORCH_DTYPES, Array, DType, to_numpy, to_torch
from reference.transformers_model.build import Attention, text_config_of
from reference.transformers_model.lift import lifting

Params = Mapping[str, Any]
Inputs = Mapping[str, Array]
Answers = dict[str, torch.Tensor]

SLIDING, FULL = "sliding_attention", "full_attention"
NATURAL_DTYPE = ("inv_freq", "donors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a module question is computed: dtype, attention implementation, float32 islands lifted or not."""

    dtype: torch.dtype
    attention: Attention
    lifted: bool

    def tensor(self, array: Array) -> torch.Tensor:
        """A float array in this dtype."""
        return to_torch(array, self.dtype)

    def scale(self, value: float) -> torch.Tensor:
        """An embedding scale as transformers keeps it: a float32 buffer, float64 when lifted."""
        return torch.tensor(value, dtype=torch.float64 if self.lifted else torch.float32)


def answer(
    kind: str, params: Params, inputs: Inputs, *, dtype: DType, attention: Attention = "eager", lifted: bool = False
) -> dict[str, Array]:
    """The taps of one of MODULES in `dtype`; `inv_freq` and `donors` keep their own."""
    setting = Setting(dtype=TORCH_DTYPES[dtype], attention=attention, lifted=lifted)
    with torch.inference_mode(), lifting(lifted):
        answers = MODULES[kind](params, inputs, setting)
    return {
        name: to_numpy(tensor, tensor.dtype if name in NATURAL_DTYPE else setting.dtype)
        for name, tensor in answers.items()
    }


def _config(**fields: Any) -> Gemma4TextConfig:
    """A two-layer configuration without PLE, with the given fields."""
    plain = {"num_hidden_layers": 2, "layer_types": [SLIDING, FULL], "hidden_size_per_layer_input": 0, "vocab_size": 8}
    make: Any = Gemma4TextConfig
    config: Gemma4TextConfig = make(**(plain | fields))
    config._experts_implementation = "eager"
    return config


def _module(make: Callable[[], Module], weights: Mapping[str, torch.Tensor], *, strict: bool = True) -> Any:
    """A module of transformers with these weights and no others."""
    with torch.device("meta"):
        module = make()
    module.load_state_dict(weights, strict=strict, assign=True)
    return module.eval()


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text part of a config.json, nested or flat."""
    text: Mapping[str, Any] | None = config.get("text_config")
    return config if text is None else text


def _seen(module: Module, run: Callable[[], Any], *, first_input: bool = False) -> tuple[Any, torch.Tensor]:
    """What `run` returns, and what `module` returned meanwhile (or took)."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, args, output: seen.append(args[0] if first_input else output))
    try:
        result = run()
    finally:
        handle.remove()
    return result, seen[0]


def _linear(params: Params, inputs: Inputs, at: Setting) -> Answers:
    return {"y": linear(at.tensor(inputs["x"]), at.tensor(inputs["weight"]))}


def _rms_norm(params: Params, inputs: Inputs, at: Setting) -> Answers:
    weights = {"weight": at.tensor(inputs["weight"])} if "weight" in inputs else {}
    width = inputs["x"].shape[-1]
    norm = _module(lambda: gemma4.Gemma4RMSNorm(width, eps=params["eps"], with_scale=bool(weights)), weights)
    return {"y": norm(at.tensor(inputs["x"]))}


def _rope(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """Angles from Gemma4TextRotaryEmbedding, rotation by apply_rotary_pos_emb: y B H L E."""
    x = at.tensor(inputs["x"])
    layer_type = FULL if params["rope_type"] == "proportional" else SLIDING
    full = {"rope_type": "proportional", "partial_rotary_factor": params["partial_rotary_factor"]}
    ropes = {
        FULL: full | {"rope_theta": params["rope_theta"]},
        SLIDING: {"rope_type": "default", "rope_theta": params["rope_theta"]},
    }
    config = _config(head_dim=x.shape[-1], global_head_dim=x.shape[-1], rope_parameters=ropes)
    positions = torch.tensor(inputs["positions"], dtype=torch.int64)
    cos, sin = gemma4.Gemma4TextRotaryEmbedding(config)(x, positions, layer_type)  # B L E
    return {"y": gemma4.apply_rotary_pos_emb(x, cos, sin, unsqueeze_dim=1)}


def _inv_freq(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """The rotary embedding's buffer: inv_freq E/2, float32 (float64 when lifted)."""
    rotary = gemma4.Gemma4TextRotaryEmbedding(text_config_of(_text(params["config"])))
    return {"inv_freq": getattr(rotary, f"{params['layer_type']}_inv_freq")}


def _embedding(params: Params, inputs: Inputs, at: Setting) -> Answers:
    rows, width = inputs["table"].shape
    weights = {"weight": at.tensor(inputs["table"])}
    table = _module(lambda: gemma4.Gemma4TextScaledWordEmbedding(rows, width, 0, embed_scale=width**0.5), weights)
    table.embed_scale = at.scale(width**0.5)
    return {"y": table(torch.tensor(inputs["ids"], dtype=torch.int64))}


def _ple(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """The two PLE methods of Gemma4TextModel, all else of it left on the meta device: three taps B L N P."""
    layers, width = params["num_layers"], inputs["norm"].shape[0]
    config = _config(
        num_hidden_layers=layers,
        layer_types=[SLIDING] * (layers - 1) + [FULL],
        hidden_size=inputs["projection"].shape[1],
        hidden_size_per_layer_input=width,
        vocab_size_per_layer_input=inputs["table"].shape[0],
        rms_norm_eps=params["eps"],
        pad_token_id=0,
    )
    weights = {
        "embed_tokens_per_layer.weight": at.tensor(inputs["table"]),
        "per_layer_model_projection.weight": at.tensor(inputs["projection"]),
        "per_layer_projection_norm.weight": at.tensor(inputs["norm"]),
    }
    model = _module(lambda: gemma4.Gemma4TextModel(config), weights, strict=False)
    model.embed_tokens_per_layer.embed_scale = at.scale(width**0.5)
    tokens = model.get_per_layer_inputs(torch.tensor(inputs["ids"], dtype=torch.int64))
    h = at.tensor(inputs["h"])
    ple, normed = _seen(model.per_layer_projection_norm, lambda: model.project_per_layer_inputs(h, tokens))
    return {
        "model.embed_tokens_per_layer": tokens,
        "model.per_layer_projection_norm": normed,
        "model.ple": ple,
    }


def _attention_core(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """The attention implementation with scale 1 under a mask made from positions: context B L H*E."""
    q, k, v = (at.tensor(inputs[name]) for name in ("q", "k", "v"))
    distance = inputs["q_positions"].astype(np.int64)[:, :, None] - inputs["k_positions"][:, None, :]  # B L S
    visible = distance >= 0
    if params["window"] is not None:
        visible &= distance < params["window"]
    mask = torch.tensor(visible[:, None])  # B 1 L S
    if at.attention == "eager":
        mask = torch.zeros(mask.shape, dtype=at.dtype).masked_fill(~mask, torch.finfo(at.dtype).min)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(at.attention, gemma4.eager_attention_forward)
    caller = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], is_causal=True, training=False)
    context, _ = attend(caller, q, k, v, mask, dropout=0.0, scaling=1.0)  # B L H E
    return {"context": context.reshape(q.shape[0], q.shape[2], -1)}


def _shared_kv_donors(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """The configuration's `kv_sharing_modes`: a layer that reuses has the layer of its type that stores as donor."""
    config: Any = text_config_of(_text(params["config"]))
    modes, types = config.kv_sharing_modes, config.layer_types
    stores = {types[i]: i for i, mode in enumerate(modes) if mode == "store"}
    donors = [stores[types[i]] if mode == "reuse" else i for i, mode in enumerate(modes)]
    return {"donors": torch.tensor(donors, dtype=torch.int32)}


def _mlp(params: Params, inputs: Inputs, at: Setting) -> Answers:
    width, hidden = inputs["gate"].shape
    config = _config(hidden_size=hidden, intermediate_size=width)
    weights = {f"{name}_proj.weight": at.tensor(inputs[name]) for name in ("gate", "up", "down")}
    mlp = _module(lambda: gemma4.Gemma4TextMLP(config, 0), weights)
    x = at.tensor(inputs["x"])
    y, act = _seen(mlp.down_proj, lambda: mlp(x), first_input=True)
    return {"act": act, "y": y}


def _gelu_tanh(params: Params, inputs: Inputs, at: Setting) -> Answers:
    return {"y": ACT2FN["gelu_pytorch_tanh"](at.tensor(inputs["x"]))}


def _router(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """Gemma4TextRouter, which sees its tokens as one axis: logits and dense choice, both B L X."""
    experts, hidden = inputs["proj"].shape
    config = _config(hidden_size=hidden, num_experts=experts, top_k_experts=params["top_k"], rms_norm_eps=params["eps"])
    names = {"proj": "proj.weight", "scale": "scale", "per_expert_scale": "per_expert_scale"}
    weights = {name: at.tensor(inputs[key]) for key, name in names.items()}
    router = _module(lambda: gemma4.Gemma4TextRouter(config), weights)
    h = at.tensor(inputs["h"])
    (probabilities, chosen_weights, chosen), logits = _seen(router.proj, lambda: router(h.flatten(0, 1)))
    combine = torch.zeros_like(probabilities, dtype=chosen_weights.dtype).scatter(-1, chosen, chosen_weights)
    dense = (*h.shape[:2], experts)
    return {"proj": logits.reshape(dense), "combine": combine.reshape(dense)}


def _experts(params: Params, inputs: Inputs, at: Setting) -> Answers:
    """Gemma4TextExperts, its choice read off the non-zeros of `combine`: y B L D."""
    experts, hidden, width = inputs["down"].shape
    config = _config(hidden_size=hidden, num_experts=experts, moe_intermediate_size=width)
    weights = {"gate_up_proj": at.tensor(inputs["gate_up"]), "down_proj": at.tensor(inputs["down"])}
    module = _module(lambda: gemma4.Gemma4TextExperts(config), weights)
    combine, x = at.tensor(inputs["combine"]).flatten(0, 1), at.tensor(inputs["x"])
    top_k = int((combine != 0).sum(-1).max())
    chosen = (combine != 0).to(torch.int8).topk(top_k, dim=-1).indices
    return {"y": module(x.flatten(0, 1), chosen, combine.gather(-1, chosen)).reshape(x.shape)}


def _long_sum(params: Params, inputs: Inputs, at: Setting) -> Answers:
    return {"y": at.tensor(inputs["x"]).sum(-1)}


def _exp_tanh(params: Params, inputs: Inputs, at: Setting) -> Answers:
    x = at.tensor(inputs["x"])
    return {"exp": torch.exp(x), "tanh": torch.tanh(x)}


MODULES: dict[str, Callable[[Params, Inputs, Setting], Answers]] = {
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
    "long_sum": _long_sum,
    "exp_tanh": _exp_tanh,
}
