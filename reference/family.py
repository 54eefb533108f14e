"""The published configurations of the five family members (google/gemma-4-*-it, config.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One published model: its name, and config.json split into the text configuration and the rest."""

    id: str
    repository: str
    top_level: Mapping[str, Any]
    text_config: Mapping[str, Any]

    def config(self, text_config: Mapping[str, Any]) -> dict[str, Any]:
        """A whole config.json around `text_config`, as published but for the vision and audio towers."""
        return {**self.top_level, "text_config": dict(text_config)}


ROPE: Mapping[str, Mapping[str, Any]] = {
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
}
"""`rope_parameters` of every member, and the values for a configuration that has none."""

_COMMON: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "dtype": "bfloat16",
    "enable_moe_block": False,
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 512,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "model_type": "gemma4_text",
    "num_experts": None,
    "num_global_key_value_heads": None,
    "num_kv_shared_layers": 0,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_parameters": ROPE,
    "tie_word_embeddings": True,
    "top_k_experts": None,
    "use_cache": True,
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
}

_WITH_PLE: dict[str, Any] = {
    **_COMMON,
    "attention_k_eq_v": False,
    "expert_intermediate_size": None,
    "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131072,
    "num_attention_heads": 8,
    "sliding_window": 512,
    "use_bidirectional_attention": None,
}

_WITH_K_EQ_V: dict[str, Any] = {
    **_COMMON,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "max_position_embeddings": 262144,
    "sliding_window": 1024,
    "use_bidirectional_attention": "vision",
    "use_double_wide_mlp": False,
}

_TOP_LEVEL: dict[str, Any] = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "audio_token_id": 258881,
    "boa_token_id": 256000,
    "boi_token_id": 255999,
    "dtype": "bfloat16",
    "eoa_token_id": 258883,
    "eoa_token_index": 258883,
    "eoi_token_id": 258882,
    "eos_token_id": [1, 106],
    "image_token_id": 258880,
    "initializer_range": 0.02,
    "model_type": "gemma4",
    "tie_word_embeddings": True,
    "transformers_version": "5.5.0.dev0",
    "video_token_id": 258884,
    "vision_soft_tokens_per_image": 280,
}

_UNIFIED_TOP_LEVEL: dict[str, Any] = {
    **{key: value for key, value in _TOP_LEVEL.items() if key not in ("eoa_token_id", "vision_soft_tokens_per_image")},
    "architectures": ["Gemma4UnifiedForConditionalGeneration"],
    "model_type": "gemma4_unified",
    "transformers_version": "5.10.0.dev0",
}


def layer_types(sliding: int, repeats: int) -> list[str]:
    """`sliding` sliding-window layers and one full-attention layer, repeated."""
    return ([SLIDING] * sliding + [FULL]) * repeats


FAMILY: Mapping[str, Member] = {
    member.id: member
    for member in (
        Member(
            id="e2b",
            repository="google/gemma-4-E2B-it",
            top_level=_TOP_LEVEL,
            text_config={
                **_WITH_PLE,
                "hidden_size": 1536,
                "intermediate_size": 6144,
                "layer_types": layer_types(4, 7),
                "num_hidden_layers": 35,
                "num_key_value_heads": 1,
                "num_kv_shared_layers": 20,
                "use_double_wide_mlp": True,
            },
        ),
        Member(
            id="e4b",
            repository="google/gemma-4-E4B-it",
            top_level=_TOP_LEVEL,
            text_config={
                **_WITH_PLE,
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "layer_types": layer_types(5, 7),
                "num_hidden_layers": 42,
                "num_key_value_heads": 2,
                "num_kv_shared_layers": 18,
                "use_double_wide_mlp": False,
            },
        ),
        Member(
            id="12b",
            repository="google/gemma-4-12B-it",
            top_level=_UNIFIED_TOP_LEVEL,
            text_config={
                **{key: value for key, value in _WITH_K_EQ_V.items() if key != "dtype"},
                "hidden_size": 3840,
                "intermediate_size": 15360,
                "layer_types": layer_types(5, 8),
                "model_type": "gemma4_unified_text",
                "moe_intermediate_size": None,
                "num_attention_heads": 16,
                "num_global_key_value_heads": 1,
                "num_hidden_layers": 48,
                "num_key_value_heads": 8,
            },
        ),
        Member(
            id="26b-a4b",
            repository="google/gemma-4-26B-A4B-it",
            top_level=_TOP_LEVEL,
            text_config={
                **_WITH_K_EQ_V,
                "enable_moe_block": True,
                "hidden_size": 2816,
                "intermediate_size": 2112,
                "layer_types": layer_types(5, 5),
                "moe_intermediate_size": 704,
                "num_attention_heads": 16,
                "num_experts": 128,
                "num_global_key_value_heads": 2,
                "num_hidden_layers": 30,
                "num_key_value_heads": 8,
                "top_k_experts": 8,
            },
        ),
        Member(
            id="31b",
            repository="google/gemma-4-31B-it",
            top_level=_TOP_LEVEL,
            text_config={
                **_WITH_K_EQ_V,
                "expert_intermediate_size": None,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "layer_types": layer_types(5, 10),
                "num_attention_heads": 32,
                "num_global_key_value_heads": 4,
                "num_hidden_layers": 60,
                "num_key_value_heads": 16,
            },
        ),
    )
}
