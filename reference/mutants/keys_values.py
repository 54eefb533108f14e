"""Mistakes in the value path, in K = V layers, and in the shape of full layers.

Shape letters: B batch, L query length, K key/value heads, E head dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from reference.config import TextConfig
from reference.mutants.mutant import STOPS
from reference.mutants.registry import Area
from reference.oracle.arithmetic import Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.taps import Recorder

AREA = Area("keys and values", place=40)

_V_NORM = "self_attn.v_norm"
_K_EQ_V = "K = V layers"


class _OtherValues(Decoder):
    """Makes the values of a call from something else: from the taps of its keys, or from the right values."""

    k_eq_v_only: ClassVar[bool] = False

    def keys_and_values(self, index: int, x: Array, positions: Array, valid: Array, tap: Recorder) -> KeyValues:
        if self.k_eq_v_only and not self.config.k_eq_v(index):
            return super().keys_and_values(index, x, positions, valid, tap)
        seen: dict[str, Array] = {}

        def all_but_values(name: str, value: Array) -> Array:
            seen[name] = value
            return value if name == _V_NORM else tap(name, value)

        kv = super().keys_and_values(index, x, positions, valid, all_but_values)
        values = tap(_V_NORM, self.values(index, x, positions, seen))
        return dataclasses.replace(kv, values=values)

    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        """The wrong values [B, K, L, E]; `seen` are the taps of the right keys and values."""
        raise NotImplementedError

    def normed(self, values: Array) -> Array:
        """The norm of values, which has no weight."""
        return self.ops.rms_norm(values, None, self.config.rms_norm_eps)


@AREA.mutant(
    "keqv-v-from-normed-roped-k",
    does="Takes the finished keys of K = V layers, normalised and rotated, for values, and normalises them again.",
    symptom="No crash, but wrong from the first full layer on: values carry k_norm's weight and their position.",
    cure="v = rms_norm(k_proj x): branch off before k_norm and RoPE.",
    first_tap=_V_NORM,
    layers=_K_EQ_V,
    links=("ml-explore/mlx-swift-lm#247", "ml-explore/mlx-swift-lm#245", "ml-explore/mlx-swift-lm#231"),
    caught_by=(
        "attention/12b-mini/full-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _FromFinishedKeys(_OtherValues):
    k_eq_v_only = True

    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        return self.normed(seen["self_attn.k_rope"])


@AREA.mutant(
    "keqv-v-from-normed-k",
    does="Takes the normalised keys of K = V layers for their values, and normalises them again.",
    symptom="Text without a crash, wrong from the first full layer on, even at position 0.",
    cure="v = rms_norm(k_proj x): branch off before k_norm.",
    first_tap=_V_NORM,
    layers=_K_EQ_V,
    caught_by=(
        "attention/12b-mini/full-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _FromNormedKeys(_OtherValues):
    k_eq_v_only = True

    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        return self.normed(seen["self_attn.k_norm"])


@AREA.mutant(
    "keqv-v-not-normed",
    does="Uses the raw key projection as the values of K = V layers, without the norm.",
    symptom="Full layers weigh tokens by the size of their keys.",
    cure="Values are normalised on every layer, K = V or not; the norm has no weight.",
    first_tap=_V_NORM,
    layers=_K_EQ_V,
    caught_by=(
        "attention/12b-mini/full-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _RawKeys(_OtherValues):
    k_eq_v_only = True

    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        return self.heads(index, "self_attn.k_proj.weight", x)


@AREA.mutant(
    "v-norm-missing",
    does="Leaves the values of every layer unnormalised.",
    symptom="Attention's output has the wrong size, token by token; post_attention_layernorm hides part of it.",
    cure="v = rms_norm(v_proj x), without a weight: no tensor of the checkpoint tells of it.",
    first_tap=_V_NORM,
    layers="own-KV layers",
    links=("ml-explore/mlx-swift-lm#210", "ml-explore/mlx-swift-lm@32719171"),
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _NotNormed(_OtherValues):
    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        projection = "k_proj" if self.config.k_eq_v(index) else "v_proj"
        return self.heads(index, f"self_attn.{projection}.weight", x)


@AREA.mutant(
    "v-norm-weighted",
    does="Normalises the values with k_norm's weight.",
    symptom="Values are scaled channel by channel in every layer; fluent but degraded text.",
    cure="The values' norm has no weight.",
    first_tap=_V_NORM,
    layers="own-KV layers",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _Weighted(_OtherValues):
    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        return seen[_V_NORM] * self.weight(index, "self_attn.k_norm.weight")  # [E]


@AREA.mutant(
    "v-roped",
    does="Rotates the values as well.",
    symptom="Exact at position 0; the channels of values mix with distance.",
    cure="RoPE is for queries and keys.",
    first_tap=_V_NORM,
    layers="own-KV layers",
    caught_by=(
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l2/no-cache",
    ),
)
class _Rotated(_OtherValues):
    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        return self.ops.rope(seen[_V_NORM], positions, self.frequencies[self.config.layer_types[index]])


@AREA.mutant(
    "keqv-on-sliding-layers",
    does="Ignores v_proj on the sliding layers of K = V models: their values are the key projection too.",
    symptom="Garbage on 12B, 26B-A4B and 31B; E2B and E4B are right.",
    cure="attention_k_eq_v concerns full layers; sliding layers have a v_proj.",
    first_tap=_V_NORM,
    layers="own-KV sliding layers",
    caught_by=(
        "attention/12b-mini/sliding-own",
        "forward/12b-mini/uniform-l1/no-cache",
    ),
)
class _OnSlidingLayers(_OtherValues):
    def values(self, index: int, x: Array, positions: Array, seen: Mapping[str, Array]) -> Array:
        projection = "k_proj" if self.config.attention_k_eq_v else "v_proj"
        return self.normed(self.heads(index, f"self_attn.{projection}.weight", x))


@AREA.mutant(
    "global-head-dim-ignored",
    does="Cuts full layers into heads of head_dim, as sliding ones.",
    symptom="Shapes clash at the first full layer: q_norm's weight has global_head_dim channels.",
    cure="E is global_head_dim on full layers, in flat text configurations too.",
    first_tap=STOPS,
    links=("sgl-project/sglang#32231",),
    caught_by=(
        "module/inv-freq/e2b-full",
        "attention/e2b-mini/full-own",
        "forward/e2b-mini/uniform-l1/no-cache",
    ),
)
class _OneHeadDim(TextConfig):
    def head_dim_of(self, layer: int) -> int:
        return self.head_dim
