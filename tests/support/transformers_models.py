"""transformers' model in five small configurations with random weights, its taps, and how far two of them are apart."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers

from gemma4_contract.tensors import Array
from reference.transformers_model import TransformersModel

SLIDING, FULL = "sliding_attention", "full_attention"
LENGTH = 19  # more than twice the window
IDS = np.random.default_rng(1).integers(3, 128, (2, LENGTH))
POSITIONS = np.tile(np.arange(LENGTH), (2, 1))
COMMON: dict[str, Any] = {
    "model_type": "gemma4_text",
    "attention_bias": False,
    "attention_k_eq_v": False,
    "dtype": "bfloat16",
    "enable_moe_block": False,
    "expert_intermediate_size": None,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 32,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 96,
    "hidden_size_per_layer_input": 0,
    "intermediate_size": 64,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
    "max_position_embeddings": 131072,
    "num_attention_heads": 4,
    "num_experts": None,
    "num_global_key_value_heads": None,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 0,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        SLIDING: {"rope_type": "default", "rope_theta": 1e4},
    },
    "sliding_window": 8,
    "tie_word_embeddings": True,
    "top_k_experts": None,
    "use_bidirectional_attention": None,
    "use_double_wide_mlp": False,
    "vocab_size": 128,
    "vocab_size_per_layer_input": 128,
}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"final_logit_softcapping": None},
    "ple": {
        "hidden_size_per_layer_input": 8,
        "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],  # donors 0 and 1, shared 2, 3, 4
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": True,
    },
    "k_eq_v": {
        "model_type": "gemma4_unified_text",
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "use_bidirectional_attention": "vision",
    },
    "moe": {
        "attention_k_eq_v": True,
        "enable_moe_block": True,
        "moe_intermediate_size": 24,
        "num_experts": 8,
        "num_global_key_value_heads": 1,
        "top_k_experts": 2,
    },
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def config_of(kind: str) -> dict[str, Any]:
    return COMMON | KINDS[kind]


def bf16(values: Any) -> Array:
    """Round to bfloat16, kept as float64."""
    return np.asarray(values).astype(ml_dtypes.bfloat16).astype(np.float64)


@cache
def weights_of(kind: str) -> Mapping[str, Array]:
    """Random weights, none at the value that a fresh model has: float64, bf16-representable."""
    fields = {name: value for name, value in config_of(kind).items() if name != "model_type"}
    with torch.device("meta"):
        shapes = transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(**fields)).state_dict()
    rng = np.random.default_rng(0)
    weights = {}
    for name, tensor in shapes.items():
        noise = rng.standard_normal(tensor.shape)
        if name == "lm_head.weight":
            continue
        if name.endswith("layer_scalar"):
            weights[name] = bf16([0.9])
        elif name.endswith("norm.weight") or "layernorm" in name:
            weights[name] = bf16(1 + 0.2 * noise)
        elif name.endswith("scale"):
            weights[name] = bf16(1.5 + 0.3 * noise)
        else:
            weights[name] = bf16(noise / np.sqrt(tensor.shape[-1]))
    return weights


@cache
def model_of(kind: str, dtype: str = "float64", attention: str = "eager", *, lifted: bool = False) -> TransformersModel:
    return TransformersModel(config_of(kind), weights_of(kind), dtype=dtype, attention=attention, lifted=lifted)  # type: ignore[arg-type]  # parametrised


@cache
def forward(
    kind: str, dtype: str = "float64", attention: str = "eager", *, lifted: bool = False
) -> Mapping[str, Array]:
    """The taps of a forward without a cache."""
    model = model_of(kind, dtype, attention, lifted=lifted)
    return model.run(IDS, positions=POSITIONS, steps=None, left_pad=None)


def truth(kind: str) -> Mapping[str, Array]:
    return forward(kind, lifted=True)


def error(got: Array, wanted: Array) -> float:
    """Largest error relative to the largest value; NaN if any value is NaN."""
    return float(np.abs(got.astype(np.float64) - wanted).max() / np.abs(wanted).max())


def worst(got: Mapping[str, Array], wanted: Mapping[str, Array]) -> float:
    """The largest error over all taps of `got`; NaN spreads."""
    return float(np.max([error(got[name], wanted[name].astype(np.float64)) for name in got]))


def owner_of(config: Mapping[str, Any], layer: int) -> int:
    """The layer whose keys and values `layer` reads: itself, or the last one of its type before the shared range."""
    types = config["layer_types"]
    first_shared = len(types) - config["num_kv_shared_layers"]
    return layer if layer < first_shared else max(i for i in range(first_shared) if types[i] == types[layer])


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """docs/FIXTURES.md as a table."""
    b, n, d, h = 2, config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
    rows, p = (b, LENGTH), config["hidden_size_per_layer_input"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (*rows, d), "model.norm": (*rows, d)}
    shapes |= {"logits": (*rows, config["vocab_size"]), "logits.raw": (*rows, config["vocab_size"])}
    if p:
        names = ("model.embed_tokens_per_layer", "model.per_layer_projection_norm", "model.ple")
        shapes |= dict.fromkeys(names, (*rows, n, p))
    for i, layer_type in enumerate(config["layer_types"]):
        full, shared = layer_type == FULL, owner_of(config, i) != i
        e = config["global_head_dim"] if full else config["head_dim"]
        k = (
            config["num_global_key_value_heads"]
            if full and config["attention_k_eq_v"]
            else config["num_key_value_heads"]
        )
        f = config["intermediate_size"] * (2 if shared and config["use_double_wide_mlp"] else 1)
        layer: dict[str, tuple[int, ...]] = dict.fromkeys(
            (
                *("input_layernorm", "self_attn.o_proj", "post_attention_layernorm", "residual_1", "mlp.down_proj"),
                *("pre_feedforward_layernorm", "post_feedforward_layernorm", "residual_2", "output"),
            ),
            (*rows, d),
        )
        layer |= dict.fromkeys(("self_attn.q_norm", "self_attn.q_rope"), (b, h, LENGTH, e))
        layer |= dict.fromkeys(("self_attn.k_read", "self_attn.v_read"), (b, k, LENGTH, e))
        layer |= {"self_attn.probs": (b, h, LENGTH, LENGTH), "self_attn.context": (*rows, h * e), "mlp.act": (*rows, f)}
        if not shared:
            layer |= dict.fromkeys(("self_attn.k_norm", "self_attn.k_rope", "self_attn.v_norm"), (b, k, LENGTH, e))
        if config["enable_moe_block"]:
            layer |= dict.fromkeys(("router.proj", "router.combine"), (*rows, config["num_experts"]))
            norms = ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2")
            layer |= dict.fromkeys((*norms, "experts"), (*rows, d))
        if p:
            layer |= {"ple_gated": (*rows, p)}
            layer |= dict.fromkeys(("per_layer_projection", "post_per_layer_input_norm"), (*rows, d))
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes
