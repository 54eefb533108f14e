"""Mistakes in the value path, in K = V layers, and in the shape of full layers.

Shape letters: B batch, L query length, K key/value heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reference.config import TextConfig
from reference.mutants.mutant import STOPS, Function, replaced
from reference.mutants.registry import Area
from reference.oracle import rope
from reference.oracle.arithmetic import Arithmetic, Array
from reference.oracle.decoder import Decoder
from reference.oracle.kv_cache import KeyValues
from reference.taps import Recorder

AREA = Area("keys and values")

_KEYS_AND_VALUES = "oracle.decoder.Decoder._keys_and_values"
_V_NORM = "self_attn.v_norm"
_K_EQ_V = "K = V layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Projected:
    """What the values of a call can be made of: their projection [B, K, L, E], and the taps of the keys."""

    raw: Array
    keys: Mapping[str, Array]
    norm: Callable[[Array], Array]  # the right one


def _values(right: Function, make: Callable[[_Projected], Array], *, k_eq_v_only: bool = False) -> Function:
    """`Decoder._keys_and_values` with other values, which its one norm without a weight is asked for."""

    def keys_and_values(
        self: Decoder, index: int, x: Array, positions: Array, valid: Array, tap: Recorder
    ) -> KeyValues:
        keys: dict[str, Array] = {}

        def keep(name: str, value: Array) -> None:
            keys[name] = value
            tap(name, value)

        def wrong_norm(right_norm: Function) -> Function:
            def rms_norm(x: Array, weight: Array | None, eps: float, ar: Arithmetic) -> Array:
                if weight is not None:
                    return right_norm(x, weight, eps, ar)
                return make(_Projected(raw=x, keys=keys, norm=lambda values: right_norm(values, None, eps, ar)))

            return rms_norm

        if k_eq_v_only and not self.config.k_eq_v(index):
            return right(self, index, x, positions, valid, tap)
        with replaced("oracle.norm.rms_norm", wrong_norm):
            return right(self, index, x, positions, valid, keep)

    return keys_and_values


@AREA.mutant(
    "keqv-v-from-normed-roped-k",
    replaces=_KEYS_AND_VALUES,
    does="Takes the finished keys of K = V layers, normalised and rotated, for values, and normalises them again.",
    symptom="No crash, but wrong from the first full layer on: values carry k_norm's weight and their position.",
    cure="v = rms_norm(k_proj x): branch off before k_norm and RoPE.",
    first_tap=_V_NORM,
    layers=_K_EQ_V,
    links=("ml-explore/mlx-swift-lm#247", "ml-explore/mlx-swift-lm#245", "ml-explore/mlx-swift-lm#231"),
)
def _from_finished_keys(right: Function) -> Function:
    return _values(right, lambda of: of.norm(of.keys["self_attn.k_rope"]), k_eq_v_only=True)


@AREA.mutant(
    "keqv-v-from-normed-k",
    replaces=_KEYS_AND_VALUES,
    does="Takes the normalised keys of K = V layers for their values, and normalises them again.",
    symptom="Text without a crash, wrong from the first full layer on, even at position 0.",
    cure="v = rms_norm(k_proj x): branch off before k_norm.",
    first_tap=_V_NORM,
    layers=_K_EQ_V,
)
def _from_normed_keys(right: Function) -> Function:
    return _values(right, lambda of: of.norm(of.keys["self_attn.k_norm"]), k_eq_v_only=True)


@AREA.mutant(
    "keqv-v-not-normed",
    replaces=_KEYS_AND_VALUES,
    does="Uses the raw key projection as the values of K = V layers, without the norm.",
    symptom="Full layers weigh tokens by the size of their keys.",
    cure="Values are normalised on every layer, K = V or not; the norm has no weight.",
    first_tap=_V_NORM,
    layers=_K_EQ_V,
)
def _raw_keys(right: Function) -> Function:
    return _values(right, lambda of: of.raw, k_eq_v_only=True)


@AREA.mutant(
    "v-norm-missing",
    replaces=_KEYS_AND_VALUES,
    does="Leaves the values of every layer unnormalised.",
    symptom="Attention's output has the wrong size, token by token; post_attention_layernorm hides part of it.",
    cure="v = rms_norm(v_proj x), without a weight: no tensor of the checkpoint tells of it.",
    first_tap=_V_NORM,
    layers="own-KV layers",
    links=("ml-explore/mlx-swift-lm#210", "ml-explore/mlx-swift-lm@32719171"),
)
def _not_normed(right: Function) -> Function:
    return _values(right, lambda of: of.raw)


@AREA.mutant(
    "v-norm-weighted",
    replaces=_KEYS_AND_VALUES,
    does="Normalises the values with k_norm's weight.",
    symptom="Values are scaled channel by channel in every layer; fluent but degraded text.",
    cure="The values' norm has no weight.",
    first_tap=_V_NORM,
    layers="own-KV layers",
)
def _weighted(right: Function) -> Function:
    def keys_and_values(self: Decoder, index: int, *args: Any) -> Any:
        weight = self._weight(index, "self_attn.k_norm.weight")  # [E]
        return _values(right, lambda of: of.norm(of.raw) * weight)(self, index, *args)

    return keys_and_values


@AREA.mutant(
    "v-roped",
    replaces=_KEYS_AND_VALUES,
    does="Rotates the values as well.",
    symptom="Exact at position 0; the channels of values mix with distance.",
    cure="RoPE is for queries and keys.",
    first_tap=_V_NORM,
    layers="own-KV layers",
)
def _rotated(right: Function) -> Function:
    def keys_and_values(self: Decoder, index: int, x: Array, positions: Array, *args: Any) -> Any:
        frequencies = self.frequencies[self.config.layer_types[index]]
        rotated = _values(right, lambda of: rope.rotate(of.norm(of.raw), positions, frequencies))
        return rotated(self, index, x, positions, *args)

    return keys_and_values


@AREA.mutant(
    "keqv-on-sliding-layers",
    replaces=_KEYS_AND_VALUES,
    does="Ignores v_proj on the sliding layers of K = V models: their values are the key projection too.",
    symptom="Garbage on 12B, 26B-A4B and 31B; E2B and E4B are right.",
    cure="attention_k_eq_v concerns full layers; sliding layers have a v_proj.",
    first_tap=_V_NORM,
    layers="own-KV sliding layers",
)
def _on_sliding_layers(right: Function) -> Function:
    def everywhere(right_k_eq_v: Function) -> Function:
        del right_k_eq_v

        def k_eq_v(self: TextConfig, layer: int) -> bool:
            del layer
            return self.attention_k_eq_v

        return k_eq_v

    def keys_and_values(*args: Any) -> Any:
        with replaced("config.TextConfig.k_eq_v", everywhere):  # not while loading: v_proj is in the file
            return right(*args)

    return keys_and_values


@AREA.mutant(
    "global-head-dim-ignored",
    replaces="config.TextConfig.head_dim_of",
    does="Cuts full layers into heads of head_dim, as sliding ones.",
    symptom="Shapes clash at the first full layer: q_norm's weight has global_head_dim channels.",
    cure="E is global_head_dim on full layers, in flat text configurations too.",
    first_tap=STOPS,
    links=("sgl-project/sglang#32231",),
)
def _one_head_dim(right: Function) -> Function:
    del right

    def head_dim_of(self: TextConfig, layer: int) -> int:
        del layer
        return self.head_dim

    return head_dim_of
