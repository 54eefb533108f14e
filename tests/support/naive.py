"""Gemma 4 once more, as loops over rows, heads and positions that know only the raw configuration.

Slow and plain on purpose: one vector at a time, sums by `math.fsum`, no shared code with the oracle.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gemma4_contract.tensors import Array

Raw = Mapping[str, Any]


def dot(a: Array, b: Array) -> float:
    """Sum of products."""
    return math.fsum((a * b).tolist())


def total(terms: Sequence[Array]) -> Array:
    """Sum of tensors."""
    y = np.zeros(terms[0].shape)
    for term in terms:
        y += term
    return y


def rows(x: Array) -> list[tuple[int, ...]]:
    """Indices of the vectors along the last axis."""
    return list(np.ndindex(x.shape[:-1]))


def linear(x: Array, weight: Array) -> Array:
    """x W^T, vector by vector."""
    y = np.zeros((*x.shape[:-1], len(weight)))
    for i in rows(x):
        y[i] = [dot(x[i], w) for w in weight]
    return y


def norm(x: Array, weight: Array | None, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * w, vector by vector."""
    y = np.zeros(x.shape)
    for i in rows(x):
        y[i] = x[i] / math.sqrt(dot(x[i], x[i]) / x.shape[-1] + eps)
        if weight is not None:
            y[i] *= weight
    return y


def gelu(x: float) -> float:
    """GELU, tanh form."""
    return x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gated(gate: Array, up: Array) -> Array:
    """gelu(gate) * up, value by value."""
    flat = [gelu(a) * b for a, b in zip(gate.reshape(-1).tolist(), up.reshape(-1).tolist(), strict=True)]
    return np.array(flat).reshape(gate.shape)


def frequencies(head_dim: int, rope: Raw) -> list[float]:
    """theta^(-2j/E); for proportional RoPE zero from the partial share of pairs on."""
    pairs = head_dim // 2
    kept = pairs if rope["rope_type"] == "default" else int(pairs * rope["partial_rotary_factor"])
    return [rope["rope_theta"] ** (-2 * j / head_dim) if j < kept else 0.0 for j in range(pairs)]


def rotate(x: Array, positions: Sequence[int], rope: Raw) -> Array:
    """Channel pairs (j, j + E/2) of x [B, H, L, E], as complex numbers turned by position * frequency."""
    y, half = np.zeros(x.shape), x.shape[-1] // 2
    for b, h, i in rows(x):
        for j, frequency in enumerate(frequencies(x.shape[-1], rope)):
            turn = complex(math.cos(positions[i] * frequency), math.sin(positions[i] * frequency))
            z = complex(x[b, h, i, j], x[b, h, i, j + half]) * turn
            y[b, h, i, j], y[b, h, i, j + half] = z.real, z.imag
    return y


def heads(x: Array, head_dim: int) -> Array:
    """[B, L, H*E] -> [B, H, L, E]."""
    y = np.zeros((x.shape[0], x.shape[2] // head_dim, x.shape[1], head_dim))
    for b, h, i in rows(y):
        y[b, h, i] = x[b, i, h * head_dim : (h + 1) * head_dim]
    return y


def probs(q: Array, k: Array, positions: Sequence[int], window: int | None) -> Array:
    """Softmax over the keys that a query sees, scale 1; query head h reads key head h // (H/K)."""
    y, group = np.zeros((*q.shape[:3], k.shape[2])), q.shape[1] // k.shape[1]
    for b, h, i in rows(q):
        seen = [
            j
            for j in range(k.shape[2])
            if positions[j] <= positions[i] and (window is None or positions[j] > positions[i] - window)
        ]
        scores = [dot(q[b, h, i], k[b, h // group, j]) for j in seen]
        exps = [math.exp(score - max(scores)) for score in scores]
        for j, e in zip(seen, exps, strict=True):
            y[b, h, i, j] = e / math.fsum(exps)
    return y


def context(p: Array, v: Array) -> Array:
    """The weighted values, heads side by side: [B, H, L, S], [B, K, S, E] -> [B, L, H*E]."""
    head_dim, group = v.shape[3], p.shape[1] // v.shape[1]
    y = np.zeros((p.shape[0], p.shape[2], p.shape[1] * head_dim))
    for b, h, i in rows(p):
        mix = [dot(p[b, h, i], v[b, h // group, :, e]) for e in range(head_dim)]
        y[b, i, h * head_dim : (h + 1) * head_dim] = mix
    return y


def router_logits(h: Array, scale: Array, proj: Array, eps: float) -> Array:
    """The unweighted norm of the residual, times scale / sqrt(D), projected."""
    return linear(norm(h, scale / math.sqrt(h.shape[-1]), eps), proj)


def combine(logits: Array, scales: Array, top_k: int) -> Array:
    """Softmax over the chosen experts alone, which equals renormalised softmax over all; then the experts' scales."""
    y = np.zeros(logits.shape)
    for i in rows(logits):
        row = logits[i].tolist()
        chosen = sorted(range(len(row)), key=lambda x: (-row[x], x))[:top_k]
        exps = {x: math.exp(row[x] - row[chosen[0]]) for x in chosen}
        for x in chosen:
            y[i][x] = exps[x] / math.fsum(exps.values()) * scales[x]
    return y


def experts(x: Array, weights: Array, gate_up: Array, down: Array) -> Array:
    """Every expert on every row, the unchosen at weight 0."""
    y, width = np.zeros(x.shape), down.shape[2]
    for i in rows(x):
        row = x[i][None]
        for e, weight in enumerate(weights[i]):
            act = gated(linear(row, gate_up[e, :width]), linear(row, gate_up[e, width:]))
            y[i] += weight * linear(act, down[e])[0]
    return y


class Naive:
    """Every tap of a model from the taps that it is computed from."""

    def __init__(self, raw: Raw, weights: Mapping[str, Array], ids: Array) -> None:
        self.raw, self.weights, self.ids = raw, weights, ids
        self.eps = raw["rms_norm_eps"]
        self.positions = list(range(ids.shape[1]))

    def tap(self, name: str, parents: Sequence[Array]) -> Array:
        """The tap `name` from its parents' tensors, in their order."""
        if name.startswith("model.layers."):
            _, _, layer, inner = name.split(".", 3)
            return self._layer_tap(int(layer), inner, parents)
        w, raw = self.weights, self.raw
        if name == "model.embed_tokens":
            return w["model.embed_tokens.weight"][self.ids] * math.sqrt(raw["hidden_size"])
        if name == "model.embed_tokens_per_layer":
            return self._per_layer(w["model.embed_tokens_per_layer.weight"][self.ids] * math.sqrt(self._p))
        if name == "model.per_layer_projection_norm":
            projected = linear(parents[0], w["model.per_layer_model_projection.weight"]) / math.sqrt(raw["hidden_size"])
            return norm(self._per_layer(projected), w["model.per_layer_projection_norm.weight"], self.eps)
        if name == "model.ple":
            return (parents[0] + parents[1]) / math.sqrt(2)
        if name == "model.norm":
            return norm(parents[0], w["model.norm.weight"], self.eps)
        if name == "logits.raw":
            return linear(parents[0], w["model.embed_tokens.weight"])
        assert name == "logits"
        cap = raw["final_logit_softcapping"]
        capped: Array = np.vectorize(lambda x: cap * math.tanh(x / cap), otypes=[float])(parents[0])
        return capped

    @property
    def _p(self) -> int:
        return int(self.raw["hidden_size_per_layer_input"])

    def _per_layer(self, x: Array) -> Array:
        y = np.zeros((*x.shape[:2], self.raw["num_hidden_layers"], self._p))
        for b, i, n in rows(y):
            y[b, i, n] = x[b, i, n * self._p : (n + 1) * self._p]
        return y

    def _layer_tap(self, layer: int, name: str, parents: Sequence[Array]) -> Array:
        raw, first = self.raw, parents[0]
        kind = raw["layer_types"][layer]
        full = kind == "full_attention"
        head_dim = raw["global_head_dim" if full else "head_dim"]

        def w(inner: str) -> Array:
            return self.weights[f"model.layers.{layer}.{inner}"]

        def linear_by(inner: str) -> Array:
            return linear(first, w(f"{inner}.weight"))

        if name in ("self_attn.q_norm", "self_attn.k_norm"):
            projected = linear_by(name.replace("_norm", "_proj"))
            return norm(heads(projected, head_dim), w(f"{name}.weight"), self.eps)
        if name in ("self_attn.q_rope", "self_attn.k_rope"):
            return rotate(first, self.positions, raw["rope_parameters"][kind])
        if name == "self_attn.v_norm":
            source = "k_proj" if full and raw["attention_k_eq_v"] else "v_proj"
            return norm(heads(linear_by(f"self_attn.{source}"), head_dim), None, self.eps)
        if name in ("self_attn.k_read", "self_attn.v_read"):
            return first
        if name == "self_attn.probs":
            return probs(first, parents[2], self.positions, None if full else raw["sliding_window"])
        if name == "self_attn.context":
            return context(parents[2], parents[4])
        if name in ("residual_1", "residual_2"):
            return first + parents[1]
        if name == "mlp.act":
            return gated(linear_by("mlp.gate_proj"), linear_by("mlp.up_proj"))
        if name == "router.proj":
            return router_logits(first, w("router.scale"), w("router.proj.weight"), self.eps)
        if name == "router.combine":
            return combine(first, w("router.per_expert_scale"), raw["top_k_experts"])
        if name == "experts":
            return experts(first, parents[1], w("experts.gate_up_proj"), w("experts.down_proj"))
        if name == "ple_gated":
            gate = linear_by("per_layer_input_gate")
            return gated(gate, parents[1][:, :, layer])
        if name == "output":
            return total(parents) * float(w("layer_scalar")[0])
        if name in ("self_attn.o_proj", "mlp.down_proj", "per_layer_projection"):
            return linear_by(name)
        return norm(total(parents), w(f"{name}.weight"), self.eps)  # every other tap is an RMSNorm
