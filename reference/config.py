"""The text configuration as the reference reads it: fields of config.json, and per-layer facts as pure methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from gemma4_contract.checkpoint import text_part
from reference.family import FULL, ROPE, SLIDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """RoPE of one layer type (`rope_parameters`)."""

    rope_theta: float
    rope_type: str
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
    rope_parameters: Mapping[str, Rope] = field(hash=False)  # a dict has no hash
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
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a config.json, nested or flat.

        Raises ValueError for a configuration that no implementation accepts: the last layer is not full attention,
        a KV-shared layer has no layer of its type before the shared range, or experts have no size.
        """
        text = cls.read_text(raw)
        global_head_dim, num_global_key_value_heads = cls.read_global_shapes(text)
        parsed = {
            "layer_types": cls.read_layer_types(text),
            "rope_parameters": cls.read_rope_parameters(text),
            "global_head_dim": global_head_dim,
            "num_global_key_value_heads": num_global_key_value_heads,
            "final_logit_softcapping": cls.read_softcap(text),
            "num_kv_shared_layers": cls.read_shared_layers(text),
            "use_double_wide_mlp": cls.read_double_wide(text),
            "enable_moe_block": cls.read_moe_enabled(text),
            "num_experts": text.get("num_experts"),
            "top_k_experts": text.get("top_k_experts"),
            "moe_intermediate_size": cls.read_expert_width(text),
        }
        config = cls(**{name: text[name] for name in cls.__slots__ if name in text} | parsed)
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
        for name in ("num_experts", "top_k_experts", "moe_intermediate_size"):
            if self.enable_moe_block and not getattr(self, name):
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a number beside enable_moe_block")

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
        """The number of keys that a query of this layer can see, including its own; None without a limit."""
        return self.sliding_window if self.is_sliding(layer) else None

    # Reads config.json key by key. Ports get each of these wrong, so each is a method.

    @classmethod
    def read_text(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The text decoder's part of a config.json, nested or flat."""
        return text_part(raw)

    @classmethod
    def read_layer_types(cls, text: Mapping[str, Any]) -> tuple[str, ...]:
        """The type of each layer."""
        return tuple(text["layer_types"])

    @classmethod
    def read_rope_parameters(cls, text: Mapping[str, Any]) -> dict[str, Rope]:
        """RoPE by layer type; the family's values if the key is absent."""
        return {
            kind: Rope(
                rope_theta=rope["rope_theta"],
                rope_type=rope["rope_type"],
                partial_rotary_factor=rope.get("partial_rotary_factor", 1.0),
            )
            for kind, rope in (text.get("rope_parameters") or ROPE).items()
        }

    @classmethod
    def read_global_shapes(cls, text: Mapping[str, Any]) -> tuple[int, int | None]:
        """`global_head_dim` and `num_global_key_value_heads`, in either spelling.

        Since 5.15 transformers writes `per_layer_config`: a full layer's number ("5", or "05" in a deep model) -> its
        own `head_dim` and `num_key_value_heads`. ValueError for a table that no model of this family has.
        """
        if text.get("per_layer_config") is None:
            return text.get("global_head_dim", 512), text.get("num_global_key_value_heads")
        table = {int(layer): shape for layer, shape in text["per_layer_config"].items()}
        full = {layer for layer, kind in enumerate(cls.read_layer_types(text)) if kind == FULL}
        shapes = {
            (shape.get("head_dim", text["head_dim"]), shape.get("num_key_value_heads"))
            for shape in (table.get(layer, {}) for layer in full)
        }
        if table.keys() - full or len(shapes) != 1:
            raise ValueError(
                f"per_layer_config: got {dict(table)}, expected one shape for all full layers and no other"
            )
        return shapes.pop()

    @classmethod
    def read_softcap(cls, text: Mapping[str, Any]) -> float | None:
        """The cap of the logits; None without one."""
        cap: float | None = text.get("final_logit_softcapping")
        return cap

    @classmethod
    def read_shared_layers(cls, text: Mapping[str, Any]) -> int:
        """How many layers, counted from the back, use another layer's keys and values."""
        return int(text.get("num_kv_shared_layers", 0))

    @classmethod
    def read_double_wide(cls, text: Mapping[str, Any]) -> bool:
        """Whether the MLP of KV-shared layers is twice as wide."""
        return bool(text.get("use_double_wide_mlp", False))

    @classmethod
    def read_moe_enabled(cls, text: Mapping[str, Any]) -> bool:
        """Whether there are experts: the flag alone says so, for dense models may carry the sizes of experts."""
        return bool(text.get("enable_moe_block", False))

    @classmethod
    def read_expert_width(cls, text: Mapping[str, Any]) -> int | None:
        """F of the experts: one of its two published spellings may be absent, and both are null in dense models."""
        width: int | None = text.get("moe_intermediate_size") or text.get("expert_intermediate_size")
        return width
