"""Mistakes in reading config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from reference.config import Rope, TextConfig
from reference.family import FULL, SLIDING
from reference.mutants.mutant import STOPS, Function
from reference.mutants.registry import Area

AREA = Area("configuration")

_FULL = "full layers"
Text = Mapping[str, Any]


@AREA.mutant(
    "config-flat-not-read",
    replaces="config.text_part",
    does="Reads `text_config` alone, so that a text-only model's flat configuration is not found.",
    symptom="A checkpoint saved by Gemma4ForCausalLM does not load, or loads with every field at its default.",
    cure="Where there is no `text_config`, the file itself is it.",
    first_tap=STOPS,
    links=("ollama/ollama#16663", "sgl-project/sglang#32231"),
)
def _flat_not_read(right: Function) -> Function:
    return lambda config: dict(config["text_config"])


@AREA.mutant(
    "sliding-pattern-fixed",
    replaces="config.layer_types",
    does="Takes every sixth layer for a full one, whatever `layer_types` says.",
    symptom="E2B, with a period of five, fails with mismatched head dims.",
    cure="Take each layer's type from `layer_types`.",
    first_tap=STOPS,
    links=("EricLBuehler/mistral.rs#2172", "ollama/ollama@4fefa174c"),
)
def _pattern_fixed(right: Function) -> Function:
    def layer_types(text: Text) -> tuple[str, ...]:
        count = len(right(text))
        return tuple(FULL if (i + 1) % 6 == 0 or i == count - 1 else SLIDING for i in range(count))

    return layer_types


@AREA.mutant(
    "rope-default-factor-one",
    replaces="config.rope_parameters",
    does="Without `rope_parameters` rotates all pairs of full layers: the default factor is taken for 1.",
    symptom="Only a configuration that leaves the key out is wrong.",
    cure="The default of full layers is proportional with partial_rotary_factor 0.25.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("ml-explore/mlx-lm@8223f6d8", "ml-explore/mlx-lm#1114"),
)
def _default_factor_one(right: Function) -> Function:
    return _default_of_full_layers(right, partial_rotary_factor=1.0)


@AREA.mutant(
    "rope-default-single-theta",
    replaces="config.rope_parameters",
    does="Without `rope_parameters` uses theta 1e4 on full layers as well.",
    symptom="Only a configuration that leaves the key out is wrong.",
    cure="The default theta of full layers is 1e6.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
)
def _default_single_theta(right: Function) -> Function:
    return _default_of_full_layers(right, theta=1e4)


def _default_of_full_layers(right: Function, **changes: float) -> Function:
    def rope_parameters(text: Text) -> dict[str, Rope]:
        parsed = right(text)
        if text.get("rope_parameters") is None:
            parsed[FULL] = dataclasses.replace(parsed[FULL], **changes)
        return parsed

    return rope_parameters


@AREA.mutant(
    "expert-width-one-spelling",
    replaces="config.expert_width",
    does="Knows the experts' width as `expert_intermediate_size` alone.",
    symptom="The 26B-A4B, which spells it `moe_intermediate_size`, has experts of no width.",
    cure="Read either key; both are null, or absent, in dense models.",
    first_tap=STOPS,
    links=("ollama/ollama@c29932c63", "EricLBuehler/mistral.rs#2137"),
)
def _one_spelling(right: Function) -> Function:
    return lambda text: text.get("expert_intermediate_size")


@AREA.mutant(
    "moe-built-on-dense",
    replaces="config.moe_enabled",
    does="Builds experts wherever `num_experts` is set.",
    symptom="A dense model that carries the key looks for weights that nobody has.",
    cure="`enable_moe_block` alone decides.",
    first_tap=STOPS,
    links=("ml-explore/mlx-swift-lm#210", "unslothai/unsloth-zoo#792"),
)
def _built_on_dense(right: Function) -> Function:
    return lambda text: bool(text.get("num_experts"))


@AREA.mutant(
    "global-kv-heads-ignored",
    replaces="config.global_shapes",
    does="Gives full layers as many key/value heads as sliding ones.",
    symptom="The key projection of a K = V layer has another shape than expected.",
    cure="K = V layers have `num_global_key_value_heads` of them.",
    first_tap=STOPS,
    links=("huggingface/candle@942da4556", "sgl-project/sglang#32231"),
)
def _global_kv_heads_ignored(right: Function) -> Function:
    return lambda text: (right(text)[0], None)


@AREA.mutant(
    "per-layer-config-not-read",
    replaces="config.global_shapes",
    does="Knows `global_head_dim` alone, and takes its default 512 where transformers 5.15 wrote `per_layer_config`.",
    symptom="A checkpoint saved again by a newer transformers no longer loads.",
    cure="Read `per_layer_config` where it is there: a layer's number -> head_dim and num_key_value_heads.",
    first_tap=STOPS,
    links=("vllm-project/vllm#51744", "vllm-project/vllm#49797"),
)
def _per_layer_config_not_read(right: Function) -> Function:
    return lambda text: right({key: value for key, value in text.items() if key != "per_layer_config"})


@AREA.mutant(
    "softcap-read-from-top-level",
    replaces="config.TextConfig.from_dict",
    does="Looks for `final_logit_softcapping` beside `text_config` in the place of in it, and finds none.",
    symptom="Logits of a nested checkpoint reach 120; greedy text is the same, since tanh keeps order.",
    cure="Read it from the text configuration.",
    first_tap="logits",
    links=("NVIDIA-NeMo/Megatron-Bridge#4610", "NVIDIA-NeMo/Megatron-Bridge#4645", "vllm-project/vllm#52173"),
)
def _softcap_from_top_level(right: Function) -> Function:
    def from_dict(raw: Text) -> TextConfig:
        return dataclasses.replace(right(raw), final_logit_softcapping=raw.get("final_logit_softcapping"))

    return from_dict


@AREA.mutant(
    "double-wide-ignored",
    replaces="config.double_wide",
    does="Gives KV-shared layers the MLP width of the others.",
    symptom="E2B's shared layers do not fit their weights.",
    cure="`use_double_wide_mlp` doubles F on exactly the KV-shared layers.",
    first_tap=STOPS,
    links=("huggingface/candle@933194636", "ml-explore/mlx-lm#1095"),
)
def _double_wide_ignored(right: Function) -> Function:
    return lambda text: False


@AREA.mutant(
    "double-wide-everywhere",
    replaces="config.TextConfig.mlp_width_of",
    does="Doubles the MLP width of every layer under `use_double_wide_mlp`.",
    symptom="The layers before the shared range do not fit their weights.",
    cure="`use_double_wide_mlp` doubles F on exactly the KV-shared layers.",
    first_tap=STOPS,
    links=("NVIDIA-NeMo/Megatron-Bridge#4683",),
)
def _double_wide_everywhere(right: Function) -> Function:
    return lambda self, layer: self.intermediate_size * (2 if self.use_double_wide_mlp else 1)


@AREA.mutant(
    "kv-sharing-not-implemented",
    replaces="config.shared_layers",
    does="Knows nothing of KV sharing: every layer uses k/v weights of its own.",
    symptom="Files that carry the redundant weights load and answer nonsense; others miss tensors.",
    cure="The last `num_kv_shared_layers` layers use the keys and values of their donors.",
    first_tap="self_attn.probs",
    layers="KV-shared layers",
    links=("vllm-project/vllm#43185",),
)
def _no_sharing(right: Function) -> Function:
    return lambda text: 0


@AREA.mutant(
    "head-dim-derived",
    replaces="config.TextConfig.from_dict",
    does="Computes the head dim as hidden_size / num_attention_heads.",
    symptom="The query projection of sliding layers does not fit its weights.",
    cure="`head_dim` is a field of its own: 256, where E2B's quotient is 192.",
    first_tap=STOPS,
)
def _head_dim_derived(right: Function) -> Function:
    def from_dict(raw: Text) -> TextConfig:
        config = right(raw)
        return dataclasses.replace(config, head_dim=config.hidden_size // config.num_attention_heads)

    return from_dict
