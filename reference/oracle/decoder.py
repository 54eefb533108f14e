"""The decoder: embedding, layers, logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from reference.config import TextConfig
from reference.oracle import attention, embedding, logits, mlp, moe, norm, ple, rope
from reference.oracle.arithmetic import F64, Arithmetic, Array
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.taps import Recorder, scoped, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A pass between two layers: what leaves the last that has run, [B, L, D], and what later ones attend to."""

    layers: int
    """How many have run."""
    h: Array
    donors: Mapping[int, KeyValues]
    """Layer -> the keys and values that it attended to in this pass and lends."""


class Decoder:
    """Gemma 4's text decoder over weights named as in Gemma4ForCausalLM's state dict."""

    def __init__(self, config: TextConfig, weights: Mapping[str, Array], ar: Arithmetic = F64) -> None:
        self.config = config
        self.ar = ar
        self.weights = {name: ar.cast(weight) for name, weight in weights.items()}
        self.frequencies = {
            config.layer_types[layer]: rope.inverse_frequencies(config.head_dim_of(layer), config.rope_of(layer), ar)
            for layer in range(config.num_hidden_layers)
        }

    def forward(
        self,
        ids: Array,
        positions: Array,
        valid: Array | None = None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Array:
        """Logits [B, L, V] of ids [B, L] at `positions` [B, L]; `valid` [B, L] is 0 at pads."""
        valid = np.ones(ids.shape, bool) if valid is None else valid
        h, layer_inputs = self.embed(ids, record)
        for halt in self.layers(Halt(layers=0, h=h, donors={}), layer_inputs, positions, valid, cache, record):
            h = halt.h
        return self.unembed(h, record)

    def layers(
        self,
        halt: Halt,
        layer_inputs: Array | None,
        positions: Array,
        valid: Array,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> Iterator[Halt]:
        """The layers that are left of a pass, with a halt after each; `layer_inputs` [B, L, N, P] are the PLE."""
        config, h, donors = self.config, halt.h, dict(halt.donors)
        shared = [layer for layer in range(config.num_hidden_layers) if config.is_kv_shared(layer)]
        lent = {config.kv_donor(layer) for layer in shared}  # all other keys and values are let go
        for layer in range(halt.layers, config.num_hidden_layers):
            h, attended = self.layer(
                layer,
                h,
                positions,
                valid,
                layer_input=None if layer_inputs is None else layer_inputs[:, :, layer],
                shared=donors[config.kv_donor(layer)] if layer in shared else None,
                cache=cache,
                record=record,
            )
            if layer in lent:
                donors[layer] = attended
            yield Halt(layers=layer + 1, h=h, donors=donors)

    def embed(self, ids: Array, record: Recorder = silent) -> tuple[Array, Array | None]:
        """What enters the first layer, [B, L, D], and the PLE [B, L, N, P] of models that have it."""
        h = embedding.embed(ids, self.weights["model.embed_tokens.weight"], self.ar)
        record("model.embed_tokens", h)
        return h, self._per_layer_inputs(ids, h, record) if self.config.hidden_size_per_layer_input else None

    def unembed(self, h: Array, record: Recorder = silent) -> Array:
        """Logits [B, L, V] of what leaves the last layer, [B, L, D]."""
        config, ar = self.config, self.ar
        h = norm.rms_norm(h, self.weights["model.norm.weight"], config.rms_norm_eps, ar)
        record("model.norm", h)
        raw = ar.linear(h, self.weights["model.embed_tokens.weight"])  # the tied table, unscaled
        record("logits.raw", raw)
        cap = config.final_logit_softcapping
        capped = raw if cap is None else logits.softcap(raw, cap, ar)
        record("logits", capped)
        return capped

    def layer(
        self,
        index: int,
        h: Array,
        positions: Array,
        valid: Array,
        *,
        layer_input: Array | None,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> tuple[Array, KeyValues]:
        """One layer on h [B, L, D]; returns its output and the keys and values that it attended to.

        `layer_input` [B, L, P] is the layer's slice of the PLE; `shared` are the donor's keys and values.
        """
        tap = scoped(record, f"model.layers.{index}.")
        x = self._norm(index, "input_layernorm", h, tap)
        x, attended = self.attention(index, x, positions, valid, shared=shared, cache=cache, record=record)
        h = h + self._norm(index, "post_attention_layernorm", x, tap)
        tap("residual_1", h)
        h = h + self._feed_forward(index, h, tap)
        tap("residual_2", h)
        if layer_input is not None:
            h = h + self._per_layer_branch(index, h, layer_input, tap)
        h = h * self._weight(index, "layer_scalar")
        tap("output", h)
        return h, attended

    def attention(
        self,
        index: int,
        x: Array,
        positions: Array,
        valid: Array,
        *,
        shared: KeyValues | None,
        cache: KVCache | None = None,
        record: Recorder = silent,
    ) -> tuple[Array, KeyValues]:
        """A layer's attention on its normalised input x [B, L, D]; returns o_proj's output and what was attended to."""
        config, ar = self.config, self.ar
        tap = scoped(record, f"model.layers.{index}.")
        q = self._queries(index, x, positions, tap)
        if shared is None:
            shared = self._keys_and_values(index, x, positions, valid, tap)
            if cache is not None:
                shared = cache.update(index, shared)
        mask = attention.attention_mask(positions, shared.positions, shared.valid, config.window_of(index))
        context, probs = attention.attend(q, shared.keys, shared.values, mask, ar)
        tap("self_attn.probs", probs)
        tap("self_attn.context", context)
        y = ar.linear(context, self._weight(index, "self_attn.o_proj.weight"))
        tap("self_attn.o_proj", y)
        return y, shared

    def _queries(self, index: int, x: Array, positions: Array, tap: Recorder) -> Array:
        q = self._heads(x, index, "self_attn.q_proj.weight")  # [B, H, L, E]
        q = self._norm(index, "self_attn.q_norm", q, tap)
        q = rope.rotate(q, positions, self.frequencies[self.config.layer_types[index]])
        tap("self_attn.q_rope", q)
        return q

    def _keys_and_values(self, index: int, x: Array, positions: Array, valid: Array, tap: Recorder) -> KeyValues:
        config, ar = self.config, self.ar
        raw = self._heads(x, index, "self_attn.k_proj.weight")  # [B, K, L, E]
        k = self._norm(index, "self_attn.k_norm", raw, tap)
        k = rope.rotate(k, positions, self.frequencies[config.layer_types[index]])
        tap("self_attn.k_rope", k)
        if not config.k_eq_v(index):
            raw = self._heads(x, index, "self_attn.v_proj.weight")
        v = norm.rms_norm(raw, None, config.rms_norm_eps, ar)  # neither weighted nor rotated
        tap("self_attn.v_norm", v)
        return KeyValues(keys=k, values=v, positions=positions, valid=valid)

    def _feed_forward(self, index: int, h: Array, tap: Recorder) -> Array:
        ar = self.ar
        x = self._norm(index, "pre_feedforward_layernorm", h, tap)
        gate, up = self._weight(index, "mlp.gate_proj.weight"), self._weight(index, "mlp.up_proj.weight")
        act = mlp.activation(x, gate, up, ar)
        tap("mlp.act", act)
        y = ar.linear(act, self._weight(index, "mlp.down_proj.weight"))
        tap("mlp.down_proj", y)
        if self.config.enable_moe_block:
            sparse = self._mixture_of_experts(index, h, tap)
            y = self._norm(index, "post_feedforward_layernorm_1", y, tap) + self._norm(
                index, "post_feedforward_layernorm_2", sparse, tap
            )
        return self._norm(index, "post_feedforward_layernorm", y, tap)

    def _mixture_of_experts(self, index: int, h: Array, tap: Recorder) -> Array:
        config, ar = self.config, self.ar
        assert config.top_k_experts is not None
        scale, proj = self._weight(index, "router.scale"), self._weight(index, "router.proj.weight")
        scores = moe.router_logits(h, scale, proj, config.rms_norm_eps, ar)
        tap("router.proj", scores)
        combine = moe.combine_weights(scores, self._weight(index, "router.per_expert_scale"), config.top_k_experts, ar)
        tap("router.combine", combine)
        x = self._norm(index, "pre_feedforward_layernorm_2", h, tap)
        gate_up, down = self._weight(index, "experts.gate_up_proj"), self._weight(index, "experts.down_proj")
        y = moe.experts(x, combine, gate_up, down, ar)
        tap("experts", y)
        return y

    def _per_layer_branch(self, index: int, h: Array, layer_input: Array, tap: Recorder) -> Array:
        gated = ple.gate(h, layer_input, self._weight(index, "per_layer_input_gate.weight"), self.ar)
        tap("ple_gated", gated)
        y = self.ar.linear(gated, self._weight(index, "per_layer_projection.weight"))
        tap("per_layer_projection", y)
        return self._norm(index, "post_per_layer_input_norm", y, tap)

    def _per_layer_inputs(self, ids: Array, h: Array, record: Recorder) -> Array:
        return ple.per_layer_inputs(
            ids,
            h,
            self.weights["model.embed_tokens_per_layer.weight"],
            self.weights["model.per_layer_model_projection.weight"],
            self.weights["model.per_layer_projection_norm.weight"],
            eps=self.config.rms_norm_eps,
            num_layers=self.config.num_hidden_layers,
            ar=self.ar,
            record=record,
        )

    def _heads(self, x: Array, index: int, name: str) -> Array:
        """x W^T cut into heads: [B, L, D] -> [B, heads, L, E]."""
        y = self.ar.linear(x, self._weight(index, name))
        return y.reshape(*x.shape[:2], -1, self.config.head_dim_of(index)).transpose(0, 2, 1, 3)

    def _norm(self, index: int, name: str, x: Array, tap: Recorder) -> Array:
        y = norm.rms_norm(x, self._weight(index, f"{name}.weight"), self.config.rms_norm_eps, self.ar)
        tap(name, y)
        return y

    def _weight(self, index: int, name: str) -> Array:
        return self.weights[f"model.layers.{index}.{name}"]
