"""The decoder: embedding, layers, logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from reference.config import TextConfig
from reference.oracle.arithmetic import F64, Arithmetic, Array
from reference.oracle.kv_cache import KeyValues, KVCache
from reference.oracle.ops import Ops
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
    """Gemma 4's text decoder over weights named as in Gemma4ForCausalLM's state dict.

    `ops` is the class of the functions it computes with; its own methods are the steps of the forward pass.
    """

    def __init__(
        self, config: TextConfig, weights: Mapping[str, Array], ar: Arithmetic = F64, ops: type[Ops] = Ops
    ) -> None:
        self.config = config
        self.ar = ar
        self.ops = ops(ar)
        self.weights = {name: ar.cast(weight) for name, weight in weights.items()}
        self.frequencies = {
            config.layer_types[layer]: self.ops.inverse_frequencies(config.head_dim_of(layer), config.rope_of(layer))
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
        h = self.ops.embedding(ids, self.weights["model.embed_tokens.weight"])
        h = record("model.embed_tokens", h)
        return h, self.per_layer_inputs(ids, h, record) if self.config.hidden_size_per_layer_input else None

    def per_layer_inputs(self, ids: Array, h: Array, record: Recorder) -> Array:
        """The PLE [B, L, N, P] of ids [B, L] and their scaled embedding h [B, L, D]."""
        return self.ops.per_layer_inputs(
            ids,
            h,
            self.weights["model.embed_tokens_per_layer.weight"],
            self.weights["model.per_layer_model_projection.weight"],
            self.weights["model.per_layer_projection_norm.weight"],
            eps=self.config.rms_norm_eps,
            num_layers=self.config.num_hidden_layers,
            record=record,
        )

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
        x = self.norm(index, "input_layernorm", h, tap)
        x, attended = self.attention(index, x, positions, valid, shared=shared, cache=cache, record=record)
        h = h + self.norm(index, "post_attention_layernorm", x, tap)
        h = tap("residual_1", h)
        h = h + self.feed_forward(index, h, tap)
        h = tap("residual_2", h)
        if layer_input is not None:
            h = h + self.per_layer_branch(index, h, layer_input, tap)
        h = h * self.weight(index, "layer_scalar")
        return tap("output", h), attended

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
        ops = self.ops
        tap = scoped(record, f"model.layers.{index}.")
        q = self.queries(index, x, positions, tap)
        if shared is None:
            shared = self.history(index, self.keys_and_values(index, x, positions, valid, tap), cache)
        mask = ops.attention_mask(positions, shared.positions, shared.valid, self.config.window_of(index))
        probs = ops.attention_probs(q, shared.keys, mask)
        probs = tap("self_attn.probs", probs)
        context = ops.attention_context(probs, shared.values)
        context = tap("self_attn.context", context)
        y = self.ar.linear(context, self.weight(index, "self_attn.o_proj.weight"))
        return tap("self_attn.o_proj", y), shared

    def queries(self, index: int, x: Array, positions: Array, tap: Recorder) -> Array:
        """A layer's queries, normalised and rotated: x [B, L, D] -> [B, H, L, E]."""
        q = self.heads(index, "self_attn.q_proj.weight", x)  # [B, H, L, E]
        q = self.norm(index, "self_attn.q_norm", q, tap)
        q = self.ops.rope(q, positions, self.frequencies[self.config.layer_types[index]])
        return tap("self_attn.q_rope", q)

    def keys_and_values(self, index: int, x: Array, positions: Array, valid: Array, tap: Recorder) -> KeyValues:
        """A layer's own keys and values of this call: x [B, L, D] -> two [B, K, L, E]."""
        raw = self.heads(index, "self_attn.k_proj.weight", x)  # [B, K, L, E]
        k = self.norm(index, "self_attn.k_norm", raw, tap)
        k = self.ops.rope(k, positions, self.frequencies[self.config.layer_types[index]])
        k = tap("self_attn.k_rope", k)
        if not self.config.k_eq_v(index):
            raw = self.heads(index, "self_attn.v_proj.weight", x)
        v = self.ops.rms_norm(raw, None, self.config.rms_norm_eps)  # neither weighted nor rotated
        v = tap("self_attn.v_norm", v)
        return KeyValues(keys=k, values=v, positions=positions, valid=valid)

    def history(self, index: int, new: KeyValues, cache: KVCache | None) -> KeyValues:
        """All that a layer's queries may see: the keys and values of earlier calls, and those of this one."""
        return new if cache is None else cache.update(index, new)

    def feed_forward(self, index: int, h: Array, tap: Recorder) -> Array:
        """What a layer adds after attention: MLP, or MLP and experts, on the stream h [B, L, D]."""
        x = self.norm(index, "pre_feedforward_layernorm", h, tap)
        gate, up = self.weight(index, "mlp.gate_proj.weight"), self.weight(index, "mlp.up_proj.weight")
        act = self.ops.activation(x, gate, up)
        act = tap("mlp.act", act)
        y = self.ar.linear(act, self.weight(index, "mlp.down_proj.weight"))
        y = tap("mlp.down_proj", y)
        if self.config.enable_moe_block:
            sparse = self.mixture_of_experts(index, h, tap)
            y = self.norm(index, "post_feedforward_layernorm_1", y, tap) + self.norm(
                index, "post_feedforward_layernorm_2", sparse, tap
            )
        return self.norm(index, "post_feedforward_layernorm", y, tap)

    def mixture_of_experts(self, index: int, h: Array, tap: Recorder) -> Array:
        """The weighted sum of a layer's experts on the stream h [B, L, D], before its norm."""
        config, ops = self.config, self.ops
        assert config.top_k_experts is not None
        scale, proj = self.weight(index, "router.scale"), self.weight(index, "router.proj.weight")
        scores = ops.router_logits(h, scale, proj, config.rms_norm_eps)
        scores = tap("router.proj", scores)
        combine = ops.combine_weights(scores, self.weight(index, "router.per_expert_scale"), config.top_k_experts)
        combine = tap("router.combine", combine)
        x = self.norm(index, "pre_feedforward_layernorm_2", h, tap)
        gate_up, down = self.weight(index, "experts.gate_up_proj"), self.weight(index, "experts.down_proj")
        y = ops.experts(x, combine, gate_up, down)
        return tap("experts", y)

    def per_layer_branch(self, index: int, h: Array, layer_input: Array, tap: Recorder) -> Array:
        """What the layer's slice of the PLE, `layer_input` [B, L, P], adds to the stream h [B, L, D]."""
        gated = self.ops.per_layer_gate(h, layer_input, self.weight(index, "per_layer_input_gate.weight"))
        gated = tap("ple_gated", gated)
        y = self.ar.linear(gated, self.weight(index, "per_layer_projection.weight"))
        y = tap("per_layer_projection", y)
        return self.norm(index, "post_per_layer_input_norm", y, tap)

    def unembed(self, h: Array, record: Recorder = silent) -> Array:
        """Logits [B, L, V] of what leaves the last layer, [B, L, D]."""
        h = self.ops.rms_norm(h, self.weights["model.norm.weight"], self.config.rms_norm_eps)
        h = record("model.norm", h)
        raw = self.ar.linear(h, self.weights["model.embed_tokens.weight"])  # the tied table, unscaled
        raw = record("logits.raw", raw)
        cap = self.config.final_logit_softcapping
        capped = raw if cap is None else self.ops.softcap(raw, cap)
        return record("logits", capped)

    def heads(self, index: int, name: str, x: Array) -> Array:
        """x W^T cut into heads: [B, L, D] -> [B, heads, L, E]."""
        y = self.ar.linear(x, self.weight(index, name))
        return y.reshape(*x.shape[:2], -1, self.config.head_dim_of(index)).transpose(0, 2, 1, 3)

    def norm(self, index: int, name: str, x: Array, tap: Recorder) -> Array:
        """A layer's RMSNorm of this name, which is a tap."""
        return tap(name, self.ops.rms_norm(x, self.weight(index, f"{name}.weight"), self.config.rms_norm_eps))

    def weight(self, index: int, name: str) -> Array:
        """A layer's weight by its name below the layer."""
        return self.weights[f"model.layers.{index}.{name}"]
