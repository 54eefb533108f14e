"""The text configuration as the reference reads it: fields of config.json, and per-layer facts as pure methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reference.family import FULL, SLIDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """RoPE of one layer type (`rope_parameters`)."""

    theta: float
    rotary: str
    partial_rotary_factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The fields of `text_config` that the forward pass depends on, under their own names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_global_key_value_heads: int | None
    head_dim: int
    global_head_dim: int
    rms_norm_eps: float
    sliding_window: int
    layer_types: tuple[str, ...]
    rope_parameters: Mapping[str, Rope]
    final_logit_softcapping: float | None
    hidden_size_per_layer_input: int
    vocab_size_per_layer_input: int
    attention_k_eq_v: bool
    num_kv_shared_layers: int
    use_double_wide_mlp: bool
    enable_moe_block: bool
    num_experts: int | None
    top_k_experts: int | None
    moe_intermediate_size: int | None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TextConfig:
        """Read a config.json (nested or flat) that the family table or a mini was written from.

        Raises ValueError for a configuration that no implementation accepts: the last layer is not full attention,
        or a KV-shared layer has no layer of its type before the shared range.
        """
        text = raw.get("text_config", raw)
        values = {name: text[name] for name in cls.__slots__ if name in text}
        values["layer_types"] = tuple(text["layer_types"])
        values["rope_parameters"] = {
            kind: Rope(
                theta=rope["rope_theta"],
                rotary=rope["rope_type"],
                partial_rotary_factor=rope.get("partial_rotary_factor", 1.0),
            )
            for kind, rope in text["rope_parameters"].items()
        }
        # The expert width has two published spellings; either may be present as null in a dense model.
        values["moe_intermediate_size"] = text.get("moe_intermediate_size") or text.get("expert_intermediate_size")
        config = cls(**values)
        config._validate()
        return config

    def _validate(self) -> None:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types has {len(self.layer_types)} entries for {self.num_hidden_layers} layers")
        if self.layer_types[-1] != FULL:
            raise ValueError(f"the last of layer_types is {self.layer_types[-1]}, expected {FULL}")
        own = set(self.layer_types[: self.first_kv_shared_layer])
        missing = set(self.layer_types) - own
        if missing:
            raise ValueError(f"no layer before the KV-shared range has type {', '.join(sorted(missing))}")

    @property
    def first_kv_shared_layer(self) -> int:
        """Index of the first layer without keys and values of its own (N when there is none)."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    @property
    def last_full_layer(self) -> int:
        """Index of the last full-attention layer, the last layer of every valid configuration."""
        return self.num_hidden_layers - 1 - self.layer_types[::-1].index(FULL)

    def is_sliding(self, layer: int) -> bool:
        """Whether the layer attends within the window only."""
        return self.layer_types[layer] == SLIDING

    def head_dim_of(self, layer: int) -> int:
        """E: `head_dim` on sliding layers, `global_head_dim` on full ones."""
        return self.head_dim if self.is_sliding(layer) else self.global_head_dim

    def k_eq_v(self, layer: int) -> bool:
        """Whether values are the raw key projection: `attention_k_eq_v`, on full layers only."""
        return self.attention_k_eq_v and not self.is_sliding(layer)

    def kv_heads_of(self, layer: int) -> int:
        """K: `num_global_key_value_heads` where K = V, otherwise `num_key_value_heads`."""
        if self.k_eq_v(layer) and self.num_global_key_value_heads is not None:
            return self.num_global_key_value_heads
        return self.num_key_value_heads

    def is_kv_shared(self, layer: int) -> bool:
        """Whether the layer uses another layer's keys and values (`num_kv_shared_layers` counts from the back)."""
        return layer >= self.first_kv_shared_layer

    def kv_donor(self, layer: int) -> int:
        """The layer whose keys and values this one uses: itself, or the last own-KV layer of the same type."""
        if not self.is_kv_shared(layer):
            return layer
        own = self.layer_types[: self.first_kv_shared_layer]
        return max(index for index, kind in enumerate(own) if kind == self.layer_types[layer])

    def mlp_width_of(self, layer: int) -> int:
        """F: `intermediate_size`, twice that on KV-shared layers under `use_double_wide_mlp`."""
        return self.intermediate_size * (2 if self.use_double_wide_mlp and self.is_kv_shared(layer) else 1)

    def rope_of(self, layer: int) -> Rope:
        """RoPE of the layer's type."""
        return self.rope_parameters[self.layer_types[layer]]

    def window_of(self, layer: int) -> int | None:
        """Keys that a query of this layer can see, itself included; None without a limit."""
        return self.sliding_window if self.is_sliding(layer) else None
