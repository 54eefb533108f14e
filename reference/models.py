"""The models of the suite: miniatures of the five family members, and traps for what no member shows.

A miniature is the published configuration with only its sizes overridden, so that every architectural flag is the
shipped one. Every hidden size is a number whose root bfloat16 cannot hold (sqrt(48) = 6.928 -> 6.9375).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reference.config import TextConfig
from reference.family import FAMILY, FULL, SLIDING, Member, layer_types
from reference.weights import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One configuration with its weights by rule.

    `nested` models are laid out as published (`text_config`, tensors under `model.language_model.`); the others as
    Gemma4ForCausalLM saves itself (flat config, tensors under `model.`).
    """

    id: str
    member: Member
    purpose: str
    overrides: Mapping[str, Any]
    nested: bool
    redundant_shared_kv: bool = False
    text_config: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        unknown = self.overrides.keys() - self.member.text_config.keys()
        if unknown:
            raise ValueError(f"{self.id} overrides fields that {self.member.repository} lacks: {sorted(unknown)}")
        object.__setattr__(self, "text_config", {**self.member.text_config, **self.overrides})

    @property
    def config(self) -> TextConfig:
        """The configuration as the reference reads it."""
        return TextConfig.from_dict(self.text_config)

    @property
    def config_json(self) -> dict[str, Any]:
        """The model's config.json."""
        return config_json(self.member, self.text_config, nested=self.nested)

    @property
    def tensor_prefix(self) -> str:
        """The prefix of tensor names in the checkpoint, instead of the rule's `model.`."""
        return "model.language_model." if self.nested else "model."

    def laid_out(self, built: Mapping[str, Float64]) -> dict[str, Float64]:
        """The tensors of the checkpoint, given the weights by their names in the state dict."""
        return prefixed(built, self.tensor_prefix)


def config_json(member: Member, text_config: Mapping[str, Any], *, nested: bool) -> dict[str, Any]:
    """A config.json as published, or as Gemma4ForCausalLM saves itself."""
    return member.config(text_config) if nested else {**text_config, "architectures": ["Gemma4ForCausalLM"]}


def prefixed(weights: Mapping[str, Float64], prefix: str) -> dict[str, Float64]:
    """The weights by their names in a checkpoint, with `prefix` instead of the rule's `model.`."""
    return {name.replace("model.", prefix, 1): value for name, value in weights.items()}


_MINI: dict[str, Any] = {
    "hidden_size": 48,
    "head_dim": 16,
    "global_head_dim": 32,
    "intermediate_size": 56,
    "sliding_window": 8,
    "vocab_size": 320,
    "vocab_size_per_layer_input": 320,
}
_TRAP: dict[str, Any] = {
    "hidden_size": 40,
    "head_dim": 8,
    "global_head_dim": 16,
    "intermediate_size": 32,
    "sliding_window": 8,
    "vocab_size": 128,
    "vocab_size_per_layer_input": 128,
}
_PLE_TRAP: dict[str, Any] = {**_TRAP, "hidden_size_per_layer_input": 8, "num_attention_heads": 4}

MODELS: Mapping[str, Model] = {
    model.id: model
    for model in (
        Model(
            id="e2b-mini",
            member=FAMILY["e2b"],
            purpose="PLE, KV sharing with one key/value head, and a double-wide MLP on the shared layers.",
            overrides={
                **_MINI,
                "hidden_size_per_layer_input": 16,
                "layer_types": layer_types(4, 2),
                "num_attention_heads": 4,
                "num_hidden_layers": 10,
                "num_kv_shared_layers": 5,
            },
            nested=True,
        ),
        Model(
            id="e4b-mini",
            member=FAMILY["e4b"],
            purpose="PLE and KV sharing with two key/value heads; the shared layers carry k/v weights of noise.",
            overrides={
                **_MINI,
                "hidden_size_per_layer_input": 16,
                "layer_types": layer_types(5, 2),
                "num_attention_heads": 4,
                "num_hidden_layers": 12,
                "num_kv_shared_layers": 6,
            },
            nested=True,
            redundant_shared_kv=True,
        ),
        Model(
            id="12b-mini",
            member=FAMILY["12b"],
            purpose="K = V attention with one global key/value head, under the unified model type.",
            overrides={
                **_MINI,
                "layer_types": layer_types(5, 2),
                "num_attention_heads": 4,
                "num_hidden_layers": 12,
                "num_key_value_heads": 2,
            },
            nested=True,
        ),
        Model(
            id="26b-a4b-mini",
            member=FAMILY["26b-a4b"],
            purpose="Mixture of experts beside a shared MLP, eight experts of sixteen, narrower than the hidden size.",
            overrides={
                **_MINI,
                "layer_types": layer_types(5, 1),
                "moe_intermediate_size": 16,
                "num_attention_heads": 8,
                "num_experts": 16,
                "num_hidden_layers": 6,
                "num_key_value_heads": 4,
            },
            nested=True,
        ),
        Model(
            id="31b-mini",
            member=FAMILY["31b"],
            purpose="K = V attention with two global and four local key/value heads.",
            overrides={
                **_MINI,
                "layer_types": layer_types(5, 1),
                "num_attention_heads": 8,
                "num_global_key_value_heads": 2,
                "num_hidden_layers": 6,
                "num_key_value_heads": 4,
            },
            nested=True,
        ),
        Model(
            id="trap-irregular",
            member=FAMILY["e2b"],
            purpose="Layer types without a period: the last layer before the shared range is full, so sliding donors "
            "lie further back.",
            overrides={
                **_PLE_TRAP,
                "layer_types": [FULL, SLIDING, SLIDING, FULL, SLIDING, FULL],
                "num_hidden_layers": 6,
                "num_kv_shared_layers": 2,
            },
            nested=False,
        ),
        Model(
            id="trap-softcap",
            member=FAMILY["31b"],
            purpose="A final soft cap that is not 30.",
            overrides={
                **_TRAP,
                "final_logit_softcapping": 12.0,
                "layer_types": layer_types(2, 1),
                "num_attention_heads": 4,
                "num_global_key_value_heads": 1,
                "num_hidden_layers": 3,
                "num_key_value_heads": 2,
            },
            nested=False,
        ),
        Model(
            id="trap-eps",
            member=FAMILY["12b"],
            purpose="An RMSNorm epsilon of 1e-5 after a layer whose output is small enough to feel it.",
            overrides={
                **_TRAP,
                "layer_types": layer_types(2, 1),
                "num_attention_heads": 4,
                "num_hidden_layers": 3,
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-5,
            },
            nested=False,
        ),
        Model(
            id="trap-gqa",
            member=FAMILY["e4b"],
            purpose="Three query heads to a key/value head.",
            overrides={
                **_PLE_TRAP,
                "layer_types": layer_types(1, 2),
                "num_attention_heads": 6,
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
            },
            nested=False,
        ),
        Model(
            id="trap-ple-unshared",
            member=FAMILY["e2b"],
            purpose="PLE with no KV-shared layer, so no MLP is double-wide although the flag is set.",
            overrides={
                **_PLE_TRAP,
                "layer_types": layer_types(3, 1),
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 0,
            },
            nested=False,
        ),
        Model(
            id="trap-moe",
            member=FAMILY["26b-a4b"],
            purpose="A mixture that chooses three experts of seven, and not the family's eight.",
            overrides={
                **_TRAP,
                "layer_types": layer_types(2, 1),
                "moe_intermediate_size": 12,
                "num_attention_heads": 4,
                "num_experts": 7,
                "num_global_key_value_heads": 1,
                "num_hidden_layers": 3,
                "num_key_value_heads": 2,
                "top_k_experts": 3,
            },
            nested=False,
        ),
    )
}
