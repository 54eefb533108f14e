"""Every tensor of a mini by the scalar rule: one value at a time, by the table of docs/FIXTURES.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from reference.export.scalar_rule import to_bf16, weight

CYCLE = (0.8984375, 1.1015625, 0.953125, 0.984375, 1.046875)
QUARTER_NORMS = (
    "post_attention_layernorm.weight",
    "post_feedforward_layernorm.weight",
    "post_feedforward_layernorm_1.weight",
    "post_feedforward_layernorm_2.weight",
    "post_per_layer_input_norm.weight",
)
PLAIN_NORMS = (
    "input_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "pre_feedforward_layernorm_2.weight",
    "self_attn.k_norm.weight",
    "model.per_layer_projection_norm.weight",
)


def element(model_id: str, name: str, index: int, shape: tuple[int, ...], raw: Mapping[str, Any]) -> Fraction:
    """One element of a mini's tensor by the table of docs/FIXTURES.md; `raw` is the text configuration."""
    key, width = f"{model_id}/{name}", raw["hidden_size"]
    inner = name.split(".", 3)[3] if name.startswith("model.layers.") else name
    layer = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
    if inner == "layer_scalar":
        return to_bf16(Fraction({1: 0.005, 2: 1.3}.get(layer, CYCLE[layer % 5])))
    if inner == "router.per_expert_scale":
        return weight("per-expert-scale", key, index)
    base = None
    if inner in PLAIN_NORMS:
        base = 1.0
    elif inner in QUARTER_NORMS:
        base = 0.25
    elif inner == "router.scale":
        base = 1.5 * math.sqrt(width)
    elif inner == "model.norm.weight":
        return weight("signed-norm", key, index, base=20.0)
    elif inner == "self_attn.q_norm.weight":
        types = raw["layer_types"]
        hot = layer == max(i for i, kind in enumerate(types) if kind == "full_attention")
        head_dim = raw["global_head_dim" if types[layer] == "full_attention" else "head_dim"]
        base = (5.6 if hot else 1.4) / math.sqrt(head_dim)
    if base is not None:
        return weight("norm", key, index, base=base)
    fan_in = raw["hidden_size_per_layer_input"] if inner == "model.embed_tokens_per_layer.weight" else shape[-1]
    return weight("matrix", key, index, fan_in=fan_in)
