"""The layouts in which checkpoints of Gemma 4 circulate: each holds the weights of a small model, laid out differently.

D hidden, F feed-forward width, X experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reference import weights
from reference.config import TextConfig
from reference.models import MODELS, Model, config_json, prefixed
from reference.weights import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A checkpoint with the weights of `weights_of`, and how its configuration and its tensors are written.

    `changes` are keys of the text configuration that differ from the model's, `absent` are keys that are left out.
    `other_tensors` belong to other modalities; they and redundant keys and values are noise under the layout's own id.
    """

    id: str
    weights_of: Model
    purpose: str
    nested: bool = False
    prefix: str = "model."
    shards: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    redundant_shared_kv: bool = False
    split_experts: bool = False
    with_head: bool = False
    other_tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def overrides(self) -> dict[str, Any]:
        """Fields of the configuration that differ from the published file, without those that are left out."""
        return self._present({**self.weights_of.overrides, **self.changes})

    @property
    def config(self) -> TextConfig:
        """The configuration as the reference reads it."""
        return TextConfig.from_dict(self.config_json)

    @property
    def config_json(self) -> dict[str, Any]:
        """The layout's config.json."""
        text = self._present({**self.weights_of.text_config, **self.changes})
        return config_json(self.weights_of.member, text, nested=self.nested)

    def laid_out(self, built: Mapping[str, Float64]) -> dict[str, Float64]:
        """The tensors of the checkpoint, given the weights of the model by their names in the state dict."""
        text = {**built, **self._redundant(built)} if self.redundant_shared_kv else dict(built)
        stored = prefixed(split_experts(text) if self.split_experts else text, self.prefix)
        if self.with_head:
            stored["lm_head.weight"] = built["model.embed_tokens.weight"]
        for name, shape in self.other_tensors.items():
            stored[name] = weights.matrix(f"{self.id}/{name}", shape, shape[-1])
        return stored

    def _present(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in fields.items() if key not in self.absent}

    def _redundant(self, built: Mapping[str, Float64]) -> dict[str, Float64]:
        noise = weights.weights(self.id, self.config, mini=True, redundant_shared_kv=True)
        return {name: value for name, value in noise.items() if name not in built}


def split_experts(built: Mapping[str, Float64]) -> dict[str, Float64]:
    """Fused experts as mlx-community stores them: gate_up_proj [X, 2F, D] in halves, under `switch_glu`."""
    stored: dict[str, Float64] = {}
    for name, value in built.items():
        layer, fused, part = name.partition(".experts.")
        if not fused:
            stored[name] = value
        elif part == "down_proj":
            stored[f"{layer}.experts.switch_glu.down_proj.weight"] = value
        else:
            half = value.shape[1] // 2
            stored[f"{layer}.experts.switch_glu.gate_proj.weight"] = value[:, :half]
            stored[f"{layer}.experts.switch_glu.up_proj.weight"] = value[:, half:]
    return stored


LAYOUTS: Mapping[str, Layout] = {
    layout.id: layout
    for layout in (
        Layout(
            id="layout-language-model",
            weights_of=MODELS["trap-gqa"],
            purpose="A nested configuration, and tensors under mlx-community's prefix `language_model.model.`.",
            nested=True,
            prefix="language_model.model.",
        ),
        Layout(
            id="layout-sharded",
            weights_of=MODELS["trap-irregular"],
            purpose="Three shards and an index instead of one file, as the larger members are published.",
            nested=True,
            prefix="model.language_model.",
            shards=3,
        ),
        Layout(
            id="layout-towers",
            weights_of=MODELS["trap-eps"],
            purpose="Tensors of other modalities, which a text port leaves out, and the tied head stored once more.",
            nested=True,
            prefix="model.language_model.",
            with_head=True,
            other_tensors={
                "model.embed_audio.embedding_projection.weight": (40, 12),
                "model.embed_vision.embedding_projection.weight": (40, 12),
                "model.vision_embedder.patch_dense.weight": (12, 24),
                # ends as a tensor of the text decoder does, and has its shape
                "model.vision_tower.encoder.layers.0.self_attn.k_proj.weight": (16, 40),
            },
        ),
        Layout(
            id="layout-split-experts",
            weights_of=MODELS["trap-moe"],
            purpose="Experts in mlx-community's layout: gate, up and down apart, under `switch_glu`.",
            nested=True,
            prefix="language_model.model.",
            split_experts=True,
        ),
        Layout(
            id="layout-redundant-kv",
            weights_of=MODELS["trap-gqa"],
            purpose="KV-shared layers carry k/v weights of noise, as in Google's files; nobody may read them.",
            redundant_shared_kv=True,
        ),
        Layout(
            id="layout-no-rope",
            weights_of=MODELS["trap-softcap"],
            purpose="A configuration without `rope_parameters`: the family's own apply.",
            absent=("rope_parameters",),
        ),
        Layout(
            id="layout-dense-experts",
            weights_of=MODELS["trap-eps"],
            purpose="A dense model whose configuration carries the sizes of experts: `enable_moe_block` alone decides.",
            changes={"moe_intermediate_size": 16, "num_experts": 8, "top_k_experts": 2},
        ),
        Layout(
            id="layout-per-layer-config",
            weights_of=MODELS["trap-softcap"],
            purpose="A configuration as transformers has written it since 5.15: full layers' head dim and key/value "
            "heads in `per_layer_config`.",
            changes={"per_layer_config": {"2": {"head_dim": 16, "num_key_value_heads": 1}}},
            absent=("global_head_dim", "num_global_key_value_heads"),
        ),
    )
}
