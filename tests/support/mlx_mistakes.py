"""Known mistakes of ports, put into mlx_impl by replacing one of its functions or weights."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import pytest

import mlx_impl
from gemma4_contract.recording import Recording
from mlx_impl import Config, Decoder
from mlx_impl.checkpoint import names, split_experts
from mlx_impl.model import attention, config_parse, decoder, embedding, kv_cache, mlp, moe, norms, params, ple, rope
from mlx_impl.model.attention import Attention
from mlx_impl.model.kv_cache import KV, FullKVCache
from mlx_impl.model.layer import DecoderLayer
from mlx_impl.model.taps import Tap, unwatched

Patch = pytest.MonkeyPatch


def replace(patch: Patch, owner: object, name: str, wrong: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    patch.setattr(owner, name, wrong(getattr(owner, name)))


# Weights


def loaded_with(change: Callable[[Decoder], None]) -> Callable[[Patch], None]:
    def apply(patch: Patch) -> None:
        def wrong(load: Callable[..., Decoder]) -> Callable[..., Decoder]:
            def loaded(*args: Any) -> Decoder:
                model = load(*args)
                change(model)
                return model

            return loaded

        replace(patch, mlx_impl, "load", wrong)

    return apply


def scalars_of_one(model: Decoder) -> None:
    for layer in model.model.layers:
        layer.layer_scalar = mx.ones_like(layer.layer_scalar)


def per_layer_table_transposed(model: Decoder) -> None:
    if "embed_tokens_per_layer" not in model.model:
        return
    table = model.model.embed_tokens_per_layer
    rows, packed = table.weight.shape
    layers = len(model.model.layers)
    table.weight = table.weight.reshape(rows, packed // layers, layers).swapaxes(1, 2).reshape(rows, packed)


# Norms, embedding, logits


def norm_weight_plus_one(patch: Patch) -> None:
    replace(
        patch,
        norms,
        "rms_norm",
        lambda f: lambda x, weight, eps: f(x, None if weight is None else weight + 1, eps),
    )


def eps_outside_the_root(patch: Patch) -> None:
    def wrong(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
        y = x / (mx.sqrt(mx.mean(x * x, axis=-1, keepdims=True)) + eps)
        return y if weight is None else y * weight

    patch.setattr(norms, "rms_norm", wrong)


def embedding_unscaled(patch: Patch) -> None:
    patch.setattr(embedding, "scaled_embedding", lambda ids, table: params.lookup(ids, table))


def softcap_missing(patch: Patch) -> None:
    patch.setattr(decoder, "softcap", lambda x, _: x)


def gelu_by_erf(patch: Patch) -> None:
    patch.setattr(mlp, "gelu_tanh", lambda x: x * (1 + mx.erf(x / 2**0.5)) / 2)


# RoPE


def denominator_of_the_rotary_width(patch: Patch) -> None:
    def wrong(head_dim: int, theta: float, rope_type: str, factor: float) -> mx.array:
        turning = int(factor * (head_dim // 2)) if rope_type == "proportional" else head_dim // 2
        frequencies = [theta ** (-2.0 * j / (2 * turning)) for j in range(turning)]  # over 2 * turning, not head_dim
        return mx.array(frequencies + [0.0] * (head_dim // 2 - turning))

    patch.setattr(rope, "inverse_frequencies", wrong)


def contiguous_prefix(patch: Patch) -> None:
    def wrong(right: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def turned(x: mx.array, positions: mx.array, inv_freq: mx.array) -> mx.array:
            width = 2 * int((inv_freq > 0).sum())
            block = right(x[..., :width], positions, inv_freq[: width // 2])
            return mx.concatenate([block, x[..., width:]], axis=-1)

        return turned

    replace(patch, rope, "apply_rope", wrong)


# Masks and attention


def window_of(change: Callable[[int], int | None]) -> Callable[[Patch], None]:
    def apply(patch: Patch) -> None:
        replace(
            patch,
            attention,
            "attention_mask",
            lambda f: lambda q, k, valid, window: f(q, k, valid, None if window is None else change(window)),
        )

    return apply


def pads_attended(patch: Patch) -> None:
    replace(patch, attention, "attention_mask", lambda f: lambda q, k, _, window: f(q, k, None, window))


def scores_scaled(patch: Patch) -> None:
    replace(patch, attention, "attention_probs", lambda f: lambda q, *rest: f(q * q.shape[-1] ** -0.5, *rest))


def scores_capped(patch: Patch) -> None:
    replace(patch, attention, "masked_softmax", lambda f: lambda scores, mask: f(50 * mx.tanh(scores / 50), mask))


def value_from_finished_key(patch: Patch) -> None:
    def wrong(right: Callable[..., tuple[mx.array, mx.array]]) -> Callable[..., tuple[mx.array, mx.array]]:
        def keys_values(
            self: Attention, x: mx.array, positions: mx.array, inv_freq: mx.array, tap: Tap
        ) -> tuple[mx.array, mx.array]:
            if not self.config.k_eq_v(self.layer):
                return right(self, x, positions, inv_freq, tap)
            k, _ = right(self, x, positions, inv_freq, unwatched)
            v = norms.rms_norm(k, None, self.config.rms_norm_eps)
            right(self, x, positions, inv_freq, lambda name, value: tap(name, v if "v_norm" in name else value))
            return k, v

        return keys_values

    replace(patch, Attention, "keys_values", wrong)


# PLE


def slices_of_the_next_layer(patch: Patch) -> None:
    replace(patch, ple, "per_layer_inputs", lambda f: lambda *args: mx.roll(f(*args), -1, axis=2))


def every_chunk_gets_the_first_rows(patch: Patch) -> None:
    """PLE is computed for the first chunk of a prompt and never sliced on."""
    whole: list[mx.array] = []

    def call(right: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def called(self: Decoder, ids: mx.array, *args: Any, **named: Any) -> mx.array:
            if kv_cache.common_offset(named.get("caches")) == 0:
                whole[:] = [ids]
            return right(self, ids, *args, **named)

        return called

    replace(patch, Decoder, "__call__", call)
    replace(patch, ple, "per_layer_inputs", lambda f: lambda ids, *rest: f(whole[0][:, : ids.shape[1]], *rest))


# KV sharing and the cache


def donor_of(choose: Callable[[Config, int], int]) -> Callable[[Patch], None]:
    def apply(patch: Patch) -> None:
        replace(
            patch,
            Config,
            "kv_donor",
            lambda right: lambda self, i: choose(self, i) if self.is_kv_shared(i) else right(self, i),
        )

    return apply


def first_of_type(config: Config, layer: int) -> int:
    return config.layer_types.index(config.layer_types[layer])


def second_to_last_of_type(config: Config, layer: int) -> int:
    """Or the only one of its type."""
    own = range(config.num_hidden_layers - config.num_kv_shared_layers)
    return [i for i in own if config.layer_types[i] == config.layer_types[layer]][-2:][0]


def noting_caches(patch: Patch) -> list[bool]:
    """Whether the pass under way has caches, as its first entry: shared layers have none of their own to ask."""
    cached = [False]

    def call(right: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def called(self: Decoder, *args: Any, caches: Sequence[FullKVCache] | None = None, **named: Any) -> mx.array:
            cached[0] = caches is not None
            return right(self, *args, caches=caches, **named)

        return called

    replace(patch, Decoder, "__call__", call)
    return cached


def shared_layers_see(change: Callable[[KV, int], KV], *, sliding_alone: bool) -> Callable[[Patch], None]:
    """With a cache, a change of the donor's KV, given the number of new tokens, on shared (sliding) layers."""

    def apply(patch: Patch) -> None:
        cached = noting_caches(patch)

        def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
            def called(self: Attention, x: mx.array, *args: Any, shared: KV | None = None, **named: Any) -> Any:
                touched = not sliding_alone or self.config.is_sliding(self.layer)
                if shared is not None and cached[0] and touched:
                    shared = change(shared, x.shape[1])
                return right(self, x, *args, shared=shared, **named)

            return called

        replace(patch, Attention, "__call__", wrong)

    return apply


def offset_read_after_the_update(patch: Patch) -> None:
    """Shared layers rotate their queries at the donor's offset after it took in this pass's tokens."""
    cached = noting_caches(patch)

    def queries(right: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def rotated(self: Attention, x: mx.array, positions: mx.array, *rest: Any) -> mx.array:
            moved = cached[0] and self.config.is_kv_shared(self.layer)
            return right(self, x, positions + x.shape[1] if moved else positions, *rest)

        return rotated

    replace(patch, Attention, "queries", queries)


# Mixture of experts


def router_fed_with_a_norm(patch: Patch) -> None:
    def wrong(right: Callable[..., mx.array]) -> Callable[..., mx.array]:
        def feed_forward(self: DecoderLayer, h: mx.array, tap: Tap) -> mx.array:
            if self.config.moe is None:
                return right(self, h, tap)
            with Patch.context() as inner:
                norm = self.pre_feedforward_layernorm_2
                replace(inner, moe, "route", lambda f: lambda x, *rest: f(norm(x), *rest))
                return right(self, h, tap)

        return feed_forward

    replace(patch, DecoderLayer, "feed_forward", wrong)


def per_expert_scale_missing(patch: Patch) -> None:
    replace(
        patch,
        moe,
        "route",
        lambda f: lambda h, scale, proj, per_expert, *rest: f(h, scale, proj, mx.ones_like(per_expert), *rest),
    )


def weights_not_renormalised(patch: Patch) -> None:
    def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
        def route(h: mx.array, scale: mx.array, proj: Any, per_expert: mx.array, k: int, eps: float, tap: Any) -> Any:
            seen: dict[str, mx.array] = {}
            indices, weights = right(h, scale, proj, per_expert, k, eps, Recording(taps=seen))
            chosen = mx.softmax(seen["router.proj"], axis=-1)
            weights = weights * mx.take_along_axis(chosen, indices, axis=-1).sum(axis=-1, keepdims=True)
            tap("router.proj", seen["router.proj"])
            tap("router.combine", moe.combine_matrix(indices, weights, chosen.shape[-1]))
            return indices, weights

        return route

    replace(patch, moe, "route", wrong)


def gate_and_up_interleaved(patch: Patch) -> None:
    def wrong(x: mx.array, gate_up: mx.array, down: mx.array) -> mx.array:
        y = params.project(x, gate_up)
        return params.project(mlp.gelu_tanh(y[..., 0::2]) * y[..., 1::2], down)

    patch.setattr(moe, "expert_mlp", wrong)


# Configuration and loading


def default_factor_one(patch: Patch) -> None:
    full = {**config_parse.DEFAULT_ROPE["full_attention"], "partial_rotary_factor": 1.0}
    patch.setitem(config_parse.DEFAULT_ROPE, "full_attention", full)


def softcap_beside_text_config(patch: Patch) -> None:
    def wrong(right: Callable[..., Config]) -> Callable[..., Config]:
        def parsed(raw: dict[str, Any]) -> Config:
            return dataclasses.replace(right(raw), final_logit_softcapping=raw.get("final_logit_softcapping"))

        return parsed

    # `mlx_impl.load` is the function: the module of that name has to be asked for.
    replace(patch, importlib.import_module("mlx_impl.checkpoint.load"), "parse_config", wrong)


def one_prefix_unknown(patch: Patch) -> None:
    patch.setattr(names, "PREFIXES", tuple(prefix for prefix in names.PREFIXES if prefix != "language_model.model."))


def redundant_weights_refused(patch: Patch) -> None:
    patch.setattr(names, "is_redundant", lambda *_: False)


def up_before_gate(patch: Patch) -> None:
    def wrong(right: Callable[..., dict[str, mx.array]]) -> Callable[..., dict[str, mx.array]]:
        def fused(arrays: dict[str, mx.array]) -> dict[str, mx.array]:
            whole = right(arrays)
            for name in whole.keys() - arrays.keys():
                if name.endswith("gate_up_proj"):
                    whole[name] = mx.concatenate(mx.split(whole[name], 2, axis=1)[::-1], axis=1)
            return whole

        return fused

    replace(patch, split_experts, "fused", wrong)


# Decoding


def single_steps_see_one_key_less(patch: Patch) -> None:
    replace(
        patch,
        kv_cache.RotatingKVCache,
        "retain",
        lambda _: lambda self, attended: kv_cache.newest(attended, self.window - 2),
    )


def nothing_carried(patch: Patch) -> None:
    def wrong(right: Callable[..., KV]) -> Callable[..., KV]:
        def update(self: FullKVCache, *args: Any) -> KV:
            self._kept = None
            return right(self, *args)

        return update

    replace(patch, FullKVCache, "update", wrong)
