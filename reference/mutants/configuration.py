"""Mistakes in reading config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from reference.config import Rope, TextConfig
from reference.family import FULL, SLIDING
from reference.mutants.mutant import STOPS
from reference.mutants.registry import Area

AREA = Area("configuration", place=180)

_FULL = "full layers"
Text = Mapping[str, Any]


class _OtherDefault(TextConfig):
    """Takes another RoPE of full layers where `rope_parameters` is absent."""

    @classmethod
    def read_rope_parameters(cls, text: Text) -> dict[str, Rope]:
        parsed = super().read_rope_parameters(text)
        if text.get("rope_parameters") is None:
            parsed[FULL] = cls.other_default(parsed[FULL])
        return parsed

    @classmethod
    def other_default(cls, full: Rope) -> Rope:
        """The wrong default; `full` is the right one."""
        raise NotImplementedError


@AREA.mutant(
    "config-flat-not-read",
    does="Reads `text_config` alone, so that a text-only model's flat configuration is not found.",
    symptom="A checkpoint saved by Gemma4ForCausalLM does not load, or loads with every field at its default.",
    cure="Where there is no `text_config`, the file itself is it.",
    first_tap=STOPS,
    links=("ollama/ollama#16663", "sgl-project/sglang#32231"),
    caught_by=(
        "module/inv-freq/e2b-full",
        "forward/trap-eps/uniform-l19/no-cache",
    ),
)
class _FlatNotRead(TextConfig):
    @classmethod
    def read_text(cls, raw: Text) -> dict[str, Any]:
        return dict(raw["text_config"])


@AREA.mutant(
    "sliding-pattern-fixed",
    does="Takes every sixth layer for a full one, whatever `layer_types` says.",
    symptom="E2B, with a period of five, fails with mismatched head dims.",
    cure="Take each layer's type from `layer_types`.",
    first_tap=STOPS,
    links=("EricLBuehler/mistral.rs#2172", "ollama/ollama@4fefa174c"),
    caught_by=(
        "module/shared-kv-donors/e2b",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _PatternFixed(TextConfig):
    @classmethod
    def read_layer_types(cls, text: Text) -> tuple[str, ...]:
        count = len(super().read_layer_types(text))
        return tuple(FULL if (i + 1) % 6 == 0 or i == count - 1 else SLIDING for i in range(count))


@AREA.mutant(
    "rope-default-factor-one",
    does="Without `rope_parameters` rotates all pairs of full layers: the default factor is taken for 1.",
    symptom="Only a configuration that leaves the key out is wrong.",
    cure="The default of full layers is proportional with partial_rotary_factor 0.25.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    links=("ml-explore/mlx-lm@8223f6d8", "ml-explore/mlx-lm#1114"),
    caught_by=("forward/layout-no-rope/uniform-l19/no-cache",),
)
class _DefaultFactorOne(_OtherDefault):
    @classmethod
    def other_default(cls, full: Rope) -> Rope:
        return dataclasses.replace(full, partial_rotary_factor=1.0)


@AREA.mutant(
    "rope-default-single-theta",
    does="Without `rope_parameters` uses theta 1e4 on full layers as well.",
    symptom="Only a configuration that leaves the key out is wrong.",
    cure="The default theta of full layers is 1e6.",
    first_tap="self_attn.q_rope",
    layers=_FULL,
    caught_by=("forward/layout-no-rope/uniform-l19/no-cache",),
)
class _DefaultSingleTheta(_OtherDefault):
    @classmethod
    def other_default(cls, full: Rope) -> Rope:
        return dataclasses.replace(full, rope_theta=1e4)


@AREA.mutant(
    "expert-width-one-spelling",
    does="Knows the experts' width as `expert_intermediate_size` alone.",
    symptom="The 26B-A4B, which spells it `moe_intermediate_size`, has experts of no width.",
    cure="Read either key; both are null, or absent, in dense models.",
    first_tap=STOPS,
    links=("ollama/ollama@c29932c63", "EricLBuehler/mistral.rs#2137"),
    caught_by=(
        "layer/26b-a4b-mini/full-own-hot",
        "forward/26b-a4b-mini/uniform-l1/no-cache",
    ),
)
class _OneSpelling(TextConfig):
    @classmethod
    def read_expert_width(cls, text: Text) -> int | None:
        return text.get("expert_intermediate_size")


@AREA.mutant(
    "moe-built-on-dense",
    does="Builds experts wherever `num_experts` is set.",
    symptom="A dense model that carries the key looks for weights that nobody has.",
    cure="`enable_moe_block` alone decides.",
    first_tap=STOPS,
    links=("ml-explore/mlx-swift-lm#210", "unslothai/unsloth-zoo#792"),
    caught_by=("forward/layout-dense-experts/uniform-l19/no-cache",),
)
class _BuiltOnDense(TextConfig):
    @classmethod
    def read_moe_enabled(cls, text: Text) -> bool:
        return bool(text.get("num_experts"))


@AREA.mutant(
    "global-kv-heads-ignored",
    does="Gives full layers as many key/value heads as sliding ones.",
    symptom="The key projection of a K = V layer has another shape than expected.",
    cure="K = V layers have `num_global_key_value_heads` of them.",
    first_tap=STOPS,
    links=("huggingface/candle@942da4556", "sgl-project/sglang#32231"),
    caught_by=(
        "attention/12b-mini/full-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _GlobalKVHeadsIgnored(TextConfig):
    @classmethod
    def read_global_shapes(cls, text: Text) -> tuple[int, int | None]:
        return super().read_global_shapes(text)[0], None


@AREA.mutant(
    "per-layer-config-not-read",
    does="Knows `global_head_dim` alone, and takes its default 512 where transformers 5.15 wrote `per_layer_config`.",
    symptom="A checkpoint saved again by a newer transformers no longer loads.",
    cure="Read `per_layer_config` where it is there: a layer's number -> head_dim and num_key_value_heads.",
    first_tap=STOPS,
    links=("vllm-project/vllm#51744", "vllm-project/vllm#49797"),
    caught_by=("forward/layout-per-layer-config/uniform-l19/no-cache",),
)
class _PerLayerConfigNotRead(TextConfig):
    @classmethod
    def read_global_shapes(cls, text: Text) -> tuple[int, int | None]:
        return super().read_global_shapes({key: value for key, value in text.items() if key != "per_layer_config"})


@AREA.mutant(
    "softcap-read-from-top-level",
    does="Looks for `final_logit_softcapping` beside `text_config` instead of in it, and finds none.",
    symptom="Logits of a nested checkpoint reach 120; greedy text is the same, since tanh keeps order.",
    cure="Read it from the text configuration.",
    first_tap="logits",
    links=("NVIDIA-NeMo/Megatron-Bridge#4610", "NVIDIA-NeMo/Megatron-Bridge#4645", "vllm-project/vllm#52173"),
    caught_by=("forward/e2b-mini/uniform-l1/no-cache",),
)
class _SoftcapFromTopLevel(TextConfig):
    @classmethod
    def from_dict(cls, raw: Text) -> Self:
        cap = raw.get("final_logit_softcapping")
        return dataclasses.replace(super().from_dict(raw), final_logit_softcapping=cap)


@AREA.mutant(
    "double-wide-ignored",
    does="Gives KV-shared layers the MLP width of the others.",
    symptom="E2B's shared layers do not fit their weights.",
    cure="`use_double_wide_mlp` doubles F on exactly the KV-shared layers.",
    first_tap=STOPS,
    links=("huggingface/candle@933194636", "ml-explore/mlx-lm#1095"),
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _DoubleWideIgnored(TextConfig):
    @classmethod
    def read_double_wide(cls, text: Text) -> bool:
        return False


@AREA.mutant(
    "double-wide-everywhere",
    does="Doubles the MLP width of every layer under `use_double_wide_mlp`.",
    symptom="The layers before the shared range do not fit their weights.",
    cure="`use_double_wide_mlp` doubles F on exactly the KV-shared layers.",
    first_tap=STOPS,
    links=("NVIDIA-NeMo/Megatron-Bridge#4683",),
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _DoubleWideEverywhere(TextConfig):
    def mlp_width_of(self, layer: int) -> int:
        return self.intermediate_size * (2 if self.use_double_wide_mlp else 1)


@AREA.mutant(
    "kv-sharing-not-implemented",
    does="Knows nothing of KV sharing: every layer uses k/v weights of its own.",
    symptom="Files that carry the redundant weights load and answer nonsense; others miss tensors.",
    cure="The last `num_kv_shared_layers` layers use the keys and values of their donors.",
    first_tap="self_attn.k_read",
    layers="KV-shared layers",
    links=("vllm-project/vllm#43185",),
    caught_by=(
        "module/shared-kv-donors/e2b",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NoSharing(TextConfig):
    @classmethod
    def read_shared_layers(cls, text: Text) -> int:
        return 0


@AREA.mutant(
    "head-dim-derived",
    does="Computes the head dim as hidden_size / num_attention_heads.",
    symptom="The query projection of sliding layers does not fit its weights.",
    cure="`head_dim` is a field of its own: 256, where E2B's quotient is 192.",
    first_tap=STOPS,
    caught_by=(
        "module/inv-freq/e2b-sliding",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _HeadDimDerived(TextConfig):
    @classmethod
    def from_dict(cls, raw: Text) -> Self:
        config = super().from_dict(raw)
        return dataclasses.replace(config, head_dim=config.hidden_size // config.num_attention_heads)
