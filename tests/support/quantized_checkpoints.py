"""Checkpoints as mlx-community writes them: quantised, in the layouts in circulation, their weights drawn here."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_impl import Decoder, parse_config
from tests.support import gemma4_small as g

PREFIX = "language_model.model."
S, F = g.S, g.F
# Widths are whole numbers of groups, as in all published sizes.
E2B = g.text_config(
    head_dim=64,
    global_head_dim=128,
    hidden_size=128,
    hidden_size_per_layer_input=64,
    intermediate_size=192,
    layer_types=[S, S, F, S, F],
    num_attention_heads=2,
    num_hidden_layers=5,
    num_key_value_heads=1,
    num_kv_shared_layers=2,
    sliding_window=8,
    use_bidirectional_attention=None,
    use_double_wide_mlp=True,
    vocab_size=96,
    vocab_size_per_layer_input=96,
)
MIXTURE = g.text_config(
    attention_k_eq_v=True,
    enable_moe_block=True,
    head_dim=64,
    global_head_dim=128,
    hidden_size=128,
    intermediate_size=192,
    layer_types=[S, F],
    moe_intermediate_size=64,
    num_attention_heads=2,
    num_experts=8,
    num_global_key_value_heads=1,
    num_hidden_layers=2,
    num_key_value_heads=1,
    sliding_window=8,
    top_k_experts=2,
    vocab_size=96,
)
"""As published but for the sizes."""


def plain(config: dict[str, Any]) -> dict[str, mx.array]:
    """bf16 weights by their names in the state dict."""
    named = g.weights(Decoder(parse_config(config)))
    return {name: mx.array(value).astype(mx.bfloat16) for name, value in named.items()}


def split(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The same with the experts apart, as `experts.switch_glu`."""
    apart: dict[str, mx.array] = {}
    for name, value in weights.items():
        layer, _, stack = name.partition(".experts.")
        if stack == "gate_up_proj":
            gate, up = mx.split(value, 2, axis=1)
            apart |= {
                f"{layer}.experts.switch_glu.{part}_proj.weight": half for part, half in (("gate", gate), ("up", up))
            }
        elif stack == "down_proj":
            apart[f"{layer}.experts.switch_glu.down_proj.weight"] = value
        else:
            apart[name] = value
    return apart


def is_matrix(name: str, value: mx.array) -> bool:
    return value.ndim >= 2 and name.endswith(".weight")


def write(
    folder: Path,
    config: dict[str, Any],
    *,
    bits: int = 4,
    group_size: int = 64,
    projection: bool = True,
    redundant: bool = False,
    overrides: dict[str, int] | None = None,
    prefix: str = PREFIX,
) -> dict[str, mx.array]:
    """Write a checkpoint; the weights that it stands for, dequantised.

    `projection` says whether `per_layer_model_projection` is quantised, `redundant` whether KV-shared layers have keys
    and values, `overrides` names modules (below the prefix) of other bits.
    """
    overrides = overrides or {}
    stored: dict[str, mx.array] = {}
    meant: dict[str, mx.array] = {}
    for name, value in split(plain(config)).items():
        module, inner = name.removesuffix(".weight"), name.removeprefix("model.")
        if not is_matrix(name, value) or (not projection and "per_layer_model_projection" in name):
            stored[prefix + inner] = meant[name] = value
            continue
        own = overrides.get(module.removeprefix("model."), bits)
        packed, scales, biases = mx.quantize(value, group_size=group_size, bits=own)
        exact = scales.astype(mx.float32), biases.astype(mx.float32)
        meant[name] = mx.dequantize(packed, *exact, group_size=group_size, bits=own)
        path = prefix + inner.removesuffix(".weight")
        stored |= {f"{path}.weight": packed, f"{path}.scales": scales, f"{path}.biases": biases}
    if redundant:
        shared = config["num_hidden_layers"] - config["num_kv_shared_layers"]
        for layer in range(shared, config["num_hidden_layers"]):
            for part in ("k_proj", "v_proj", "k_norm"):
                theirs = {name: x for name, x in stored.items() if f"layers.0.self_attn.{part}." in name}
                stored |= {name.replace("layers.0.", f"layers.{layer}."): x + 0 for name, x in theirs.items()}
    block: dict[str, Any] = {"group_size": group_size, "bits": bits, "mode": "affine"}
    block |= {prefix + path: {"group_size": group_size, "bits": own} for path, own in overrides.items()}
    nested = {"model_type": "gemma4", "text_config": config, "quantization": block, "quantization_config": block}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(nested))
    stored["vision_tower.patch_embedder.weight"] = mx.zeros((4, 4))
    stored["embed_vision.embedding_projection.weight"] = mx.zeros((4, 4), dtype=mx.uint32)
    stored["embed_vision.embedding_projection.scales"] = mx.zeros((4, 1))
    mx.save_safetensors(str(folder / "model.safetensors"), stored, {"format": "mlx"})
    return meant
