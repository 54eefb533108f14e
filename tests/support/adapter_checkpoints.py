"""Small synthetic checkpoints for the tests of the in-process adapters.

Every parameter is random, seeded by its name, and none stands at its initial value. B batch, L query length, D hidden,
H query heads, K key/value heads, E head dim, P per-layer width, N layers, F feed-forward width, V vocabulary,
X experts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import ml_dtypes
import numpy as np

from gemma4_contract import tensors
from gemma4_contract.tensors import Array
from reference.layouts import split_experts
from reference.models import prefixed

V, LENGTH, WINDOW = 64, 19, 8
ROPE = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
COMMON: dict[str, Any] = {
    "model_type": "gemma4_text",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "num_global_key_value_heads": None,
    "head_dim": 8,
    "global_head_dim": 16,
    "vocab_size": V,
    "vocab_size_per_layer_input": V,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "enable_moe_block": False,
    "attention_k_eq_v": False,
    "rms_norm_eps": 1e-6,
    "sliding_window": WINDOW,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "rope_parameters": ROPE,
}
S, FULL = "sliding_attention", "full_attention"
KINDS: dict[str, dict[str, Any]] = {
    "ple": {
        "layer_types": [S, FULL, S, FULL, S, FULL],
        "hidden_size_per_layer_input": 6,
        "num_kv_shared_layers": 2,
        "use_double_wide_mlp": True,
    },
    "dense": {
        "layer_types": [S, S, FULL],
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "final_logit_softcapping": None,
    },
    "moe": {
        "layer_types": [S, FULL],
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "enable_moe_block": True,
        "num_experts": 6,
        "top_k_experts": 2,
        "moe_intermediate_size": 10,
    },
}
NESTED = ("ple", "moe")


def text_config(kind: str) -> dict[str, Any]:
    """The text configuration of one architectural kind."""
    config = COMMON | KINDS[kind]
    return config | {"num_hidden_layers": len(config["layer_types"])}


def rng(name: str) -> np.random.Generator:
    """A generator seeded by a name."""
    return np.random.default_rng(crc32(name.encode()))


def normal(name: str, *shape: int, scale: float = 1.0) -> Array:
    """Float32 normal values that bfloat16 can hold."""
    values: Array = (rng(name).standard_normal(shape) * scale).astype(ml_dtypes.bfloat16).astype(np.float32)
    return values


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, h, n = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    p, x = config["hidden_size_per_layer_input"], config["num_experts"] if config["enable_moe_block"] else 0
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, d), "model.norm.weight": (d,)}
    if p:
        shapes |= {
            "model.embed_tokens_per_layer.weight": (V, n * p),
            "model.per_layer_model_projection.weight": (n * p, d),
            "model.per_layer_projection_norm.weight": (p,),
        }
    for i, layer_type in enumerate(config["layer_types"]):
        full, shared = layer_type == FULL, i >= n - config["num_kv_shared_layers"]
        e = config["global_head_dim"] if full else config["head_dim"]
        keq = full and config["attention_k_eq_v"]
        k = config["num_global_key_value_heads"] if keq else config["num_key_value_heads"]
        f = config["intermediate_size"] * (2 if shared and config["use_double_wide_mlp"] else 1)
        layer: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj.weight": (h * e, d),
            "self_attn.q_norm.weight": (e,),
            "self_attn.o_proj.weight": (d, h * e),
            "mlp.gate_proj.weight": (f, d),
            "mlp.up_proj.weight": (f, d),
            "mlp.down_proj.weight": (d, f),
            "layer_scalar": (1,),
        }
        norms = [
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ]
        if not shared:
            layer |= {"self_attn.k_proj.weight": (k * e, d), "self_attn.k_norm.weight": (e,)}
            layer |= {} if keq else {"self_attn.v_proj.weight": (k * e, d)}
        if p:
            layer |= {"per_layer_input_gate.weight": (p, d), "per_layer_projection.weight": (d, p)}
            norms += ["post_per_layer_input_norm"]
        if x:
            m = config["moe_intermediate_size"]
            layer |= {"router.proj.weight": (x, d), "router.scale": (d,), "router.per_expert_scale": (x,)}
            layer |= {"experts.gate_up_proj": (x, 2 * m, d), "experts.down_proj": (x, d, m)}
            norms += [
                f"{norm}_{j}" for norm, j in (("pre_feedforward_layernorm", 2), ("post_feedforward_layernorm", 1))
            ]
            norms += ["post_feedforward_layernorm_2"]
        layer |= {f"{norm}.weight": (d,) for norm in norms}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def weights(kind: str) -> dict[str, Array]:
    """Every parameter under its name in Gemma4ForCausalLM's state dict: bfloat16, matrices with unit gain."""
    arrays = {}
    for name, shape in _shapes(text_config(kind)).items():
        if len(shape) == 1:
            value = 0.9 + 0.3 * rng(name).uniform(size=shape)
            if "post_" in name and "norm" in name:
                value = value / 4
            if name == "model.norm.weight":
                value = value * 6 * rng(name + "#sign").choice([-1, 1], size=shape)
        else:
            value = rng(name).standard_normal(shape) / np.sqrt(shape[-1])
        arrays[name] = value.astype(ml_dtypes.bfloat16)
    return arrays


def write_checkpoint(directory: Path, kind: str) -> Path:
    """An ordinary checkpoint: nested under `model.language_model.` with a tower beside it, or flat."""
    directory.mkdir(parents=True)
    config, arrays = text_config(kind), weights(kind)
    if kind in NESTED:
        arrays = {name.replace("model.", "model.language_model.", 1): array for name, array in arrays.items()}
        arrays["model.vision_tower.patch.weight"] = np.ones((2, 2), ml_dtypes.bfloat16)
        config = {"model_type": "gemma4", "text_config": config}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors.write(directory / "model.safetensors", arrays)
    return directory


def write_split_experts(directory: Path) -> Path:
    """The mixture in mlx-community's layout."""
    directory.mkdir(parents=True)
    arrays = prefixed(split_experts(weights("moe")), "language_model.model.")
    config = {"model_type": "gemma4", "text_config": text_config("moe")}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors.write(directory / "model.safetensors", arrays)
    return directory


def token_ids(batch: int = 1) -> Array:
    """Ids B L, int32, none of them 0."""
    return rng("ids").integers(1, V, size=(batch, LENGTH)).astype(np.int32)


def positions(batch: int, left_pad: tuple[int, ...] = ()) -> Array:
    """Positions B L, int32: 0 to n-1 after the pads, 0 at pads."""
    pads = np.array(left_pad or (0,) * batch)[:, None]
    counted: Array = np.maximum(np.arange(LENGTH) - pads, 0).astype(np.int32)
    return counted


def tap_shapes(kind: str, batch: int = 1, length: int = LENGTH) -> dict[str, tuple[int, ...]]:
    """Every tap of docs/FIXTURES.md that a model of this kind has, with its shape, those of plain passes excepted."""
    c = text_config(kind)
    n, d, h, p = c["num_hidden_layers"], c["hidden_size"], c["num_attention_heads"], c["hidden_size_per_layer_input"]
    rows = (batch, length)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (*rows, d), "model.norm": (*rows, d)}
    shapes |= {"logits.raw": (*rows, V), "logits": (*rows, V)}
    if p:
        names = ("model.embed_tokens_per_layer", "model.per_layer_projection_norm", "model.ple")
        shapes |= dict.fromkeys(names, (*rows, n, p))
    for i, layer_type in enumerate(c["layer_types"]):
        full, shared = layer_type == FULL, i >= n - c["num_kv_shared_layers"]
        e = c["global_head_dim"] if full else c["head_dim"]
        k = c["num_global_key_value_heads"] if full and c["attention_k_eq_v"] else c["num_key_value_heads"]
        f = c["intermediate_size"] * (2 if shared and c["use_double_wide_mlp"] else 1)
        wide = ["input_layernorm", "self_attn.o_proj", "post_attention_layernorm", "residual_1", "residual_2", "output"]
        wide += ["pre_feedforward_layernorm", "mlp.down_proj", "post_feedforward_layernorm"]
        layer: dict[str, tuple[int, ...]] = {"mlp.act": (*rows, f), "self_attn.context": (*rows, h * e)}
        layer |= {f"self_attn.{name}": (batch, h, length, e) for name in ("q_norm", "q_rope")}
        if not shared:
            layer |= {f"self_attn.{name}": (batch, k, length, e) for name in ("k_norm", "k_rope", "v_norm")}
        if p:
            layer["ple_gated"] = (*rows, p)
            wide += ["per_layer_projection", "post_per_layer_input_norm"]
        if c["enable_moe_block"]:
            layer |= {f"router.{name}": (*rows, c["num_experts"]) for name in ("proj", "combine")}
            wide += ["experts", "pre_feedforward_layernorm_2"]
            wide += ["post_feedforward_layernorm_1", "post_feedforward_layernorm_2"]
        layer |= dict.fromkeys(wide, (*rows, d))
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes
