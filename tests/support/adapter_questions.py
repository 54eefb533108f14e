"""One question of every module kind, with the answer of a plain float64 formula.

B batch, L query length, S key length, D hidden, H query heads, K key/value heads, E head dim, P per-layer width,
N layers, F feed-forward width, X experts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.adapters.base import Request
from gemma4_contract.tensors import Array
from tests.support.adapter_checkpoints import normal, rng, text_config


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a module kind is asked, and what it should answer."""

    kind: str
    params: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    expected: dict[str, Array]


def wide(**arrays: Array) -> dict[str, Array]:
    """The arrays in float64."""
    return {name: array.astype(np.float64) for name, array in arrays.items()}


def gelu(x: Array) -> Array:
    """The tanh form of GELU."""
    y: Array = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y


def norm(x: Array, weight: Array | float = 1.0, eps: float = 1e-6) -> Array:
    """RMS norm over the last axis."""
    y: Array = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight
    return y


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = y / y.sum(axis=-1, keepdims=True)
    return shares


def linear_question() -> Question:
    """y = x weight^T."""
    i = {"x": normal("x", 5, 32), "weight": normal("w", 7, 32)}
    w = wide(**i)
    return Question(kind="linear", inputs=i, expected={"y": w["x"] @ w["weight"].T})


def rms_norm_question(weighted: bool) -> Question:
    """An eps that matters: the input is small."""
    i = {"x": normal("x", 5, 16, scale=0.01)} | ({"weight": normal("w", 16)} if weighted else {})
    w = wide(**i)
    expected = {"y": norm(w["x"], w.get("weight", 1.0), 1e-4)}
    return Question(kind="rms_norm", params={"eps": 1e-4}, inputs=i, expected=expected)


def rotated(x: Array, positions: Array, freq: Array) -> Array:
    """RoPE in halves: x B H L E, freq E/2."""
    angle = positions[:, None, :, None] * freq
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


def frequencies(width: int, theta: float, share: float) -> Array:
    """inv_freq E/2: the first `share` of the pairs rotate, the exponents run over all of them."""
    freq = theta ** (-np.arange(0, width, 2) / width)
    return np.where(np.arange(width // 2) < int(share * width // 2), freq, 0.0)


def rope_question(rope_type: str, positions: list[list[int]]) -> Question:
    """Positions of each row as given."""
    p = np.array(positions, np.int32)
    x, share = normal("x", p.shape[0], 2, p.shape[1], 16), 0.25 if rope_type == "proportional" else 1.0
    y = rotated(x.astype(np.float64), p, frequencies(16, 10000.0, share))
    params = {"rope_theta": 10000.0, "rope_type": rope_type, "partial_rotary_factor": share}
    return Question(kind="rope", params=params, inputs={"x": x, "positions": p}, expected={"y": y})


def inv_freq_question(layer_type: str) -> Question:
    """From a model's configuration."""
    c = text_config("ple")
    expected = frequencies(16, 1e6, 0.25) if layer_type == "full_attention" else frequencies(8, 1e4, 1.0)
    return Question(kind="inv_freq", params={"config": c, "layer_type": layer_type}, expected={"inv_freq": expected})


def embedding_question() -> Question:
    """D = 24, whose root no float holds."""
    i = {"ids": np.array([[3, 0, 9]], np.int32), "table": normal("t", 10, 24)}
    y = i["table"].astype(np.float64)[i["ids"]] * 24**0.5
    return Question(kind="embedding", inputs=i, expected={"y": y})


def ple_question() -> Question:
    """Three layers of width 4."""
    i = {"ids": np.array([[3, 0, 9, 1]], np.int32), "h": normal("h", 1, 4, 24), "table": normal("t", 10, 12)}
    i |= {"projection": normal("p", 12, 24), "norm": normal("n", 4)}
    w = wide(**i)
    tokens = (w["table"][i["ids"]] * 2).reshape(1, 4, 3, 4)
    normed = norm((w["h"] @ w["projection"].T / 24**0.5).reshape(1, 4, 3, 4), w["norm"])
    names = ("model.embed_tokens_per_layer", "model.per_layer_projection_norm", "model.ple")
    expected = dict(zip(names, (tokens, normed, (tokens + normed) / 2**0.5), strict=True))
    return Question(kind="ple", params={"eps": 1e-6, "num_layers": 3}, inputs=i, expected=expected)


def attention_core_question(window: int | None) -> Question:
    """Two heads a key head, keys in ring order."""
    i = {"q": normal("q", 2, 4, 3, 8), "k": normal("k", 2, 2, 6, 8), "v": normal("v", 2, 2, 6, 8)}
    i |= {
        "q_positions": np.array([[3, 4, 5]] * 2, np.int32),
        "k_positions": np.array([[4, 5, 0, 1, 2, 3]] * 2, np.int32),
    }
    w = wide(**i)
    far = i["q_positions"][:, None, :, None] - i["k_positions"][:, None, None, :]
    seen = (far >= 0) & (far < (window or 99))
    scores = w["q"] @ np.repeat(w["k"], 2, axis=1).swapaxes(2, 3)
    context = softmax(np.where(seen, scores, -np.inf)) @ np.repeat(w["v"], 2, axis=1)
    expected = {"context": context.transpose(0, 2, 1, 3).reshape(2, 3, 32)}
    return Question(kind="attention_core", params={"window": window}, inputs=i, expected=expected)


def donors_question(nested: bool) -> Question:
    """Six layers, the last two shared."""
    c = text_config("ple")
    config = {"model_type": "gemma4", "text_config": c} if nested else c
    donors = np.array([0, 1, 2, 3, 2, 3], np.int32)
    return Question(kind="shared_kv_donors", params={"config": config}, expected={"donors": donors})


def mlp_question() -> Question:
    """F = 40."""
    i = {"x": normal("x", 1, 3, 24)}
    i |= {
        "gate": normal("g", 40, 24, scale=0.2),
        "up": normal("u", 40, 24, scale=0.2),
        "down": normal("d", 24, 40, scale=0.2),
    }
    w = wide(**i)
    act = gelu(w["x"] @ w["gate"].T) * (w["x"] @ w["up"].T)
    return Question(kind="mlp", inputs=i, expected={"act": act, "y": act @ w["down"].T})


def gelu_question() -> Question:
    """From -3 to 3, where tanh and erf differ."""
    x = np.linspace(-3, 3, 25).astype(np.float32)
    return Question(kind="gelu_tanh", inputs={"x": x}, expected={"y": gelu(x.astype(np.float64))})


def router_question() -> Question:
    """Three of eight experts."""
    i = {"h": normal("h", 2, 5, 24), "scale": normal("s", 24, scale=4), "proj": normal("p", 8, 24, scale=0.5)}
    i["per_expert_scale"] = 1 + normal("e", 8, scale=0.25)
    w = wide(**i)
    logits = norm(w["h"]) * w["scale"] / 24**0.5 @ w["proj"].T
    cut = np.sort(logits, axis=-1)[..., -3:-2]
    combine = softmax(np.where(logits >= cut, logits, -np.inf)) * w["per_expert_scale"]
    expected = {"proj": logits, "combine": combine}
    return Question(kind="router", params={"eps": 1e-6, "top_k": 3}, inputs=i, expected=expected)


def experts_question() -> Question:
    """Two of five experts, and in one row only one."""
    combine = np.zeros((2, 4, 5), np.float32)
    for number, row in enumerate(combine.reshape(8, 5)):
        row[rng(f"experts of {number}").choice(5, 2, replace=False)] = (0.75, 0.5)
    combine[0, 0, np.flatnonzero(combine[0, 0])[0]] = 0
    i = {"x": normal("x", 2, 4, 24), "combine": combine}
    i |= {"gate_up": normal("g", 5, 20, 24, scale=0.2), "down": normal("d", 5, 24, 10, scale=0.2)}
    w = wide(**i)
    gate, up = np.split(np.einsum("bld,xfd->blxf", w["x"], w["gate_up"]), 2, axis=-1)
    y = np.einsum("blxf,xdf,blx->bld", gelu(gate) * up, w["down"], w["combine"])
    return Question(kind="experts", inputs=i, expected={"y": y})


def softcap_question() -> Question:
    """A cap that is not 30."""
    x = normal("x", 1, 2, 16, scale=60)
    return Question(kind="softcap", params={"cap": 50.0}, inputs={"x": x}, expected={"y": np.tanh(x / 50.0) * 50.0})


def long_sum_question() -> Question:
    """Positive values, so that the sum is large."""
    x = np.abs(normal("x", 2, 300))
    return Question(kind="long_sum", inputs={"x": x}, expected={"y": x.astype(np.float64).sum(-1)})


def exp_tanh_question() -> Question:
    """From -4 to 4."""
    x = np.linspace(-4, 4, 33).astype(np.float32)
    w = x.astype(np.float64)
    return Question(kind="exp_tanh", inputs={"x": x}, expected={"exp": np.exp(w), "tanh": np.tanh(w)})


QUESTIONS: dict[str, Question] = {
    "linear": linear_question(),
    "rms-norm": rms_norm_question(weighted=True),
    "rms-norm-plain": rms_norm_question(weighted=False),
    "rope-default": rope_question("default", [[0, 1, 2], [40, 41, 42]]),
    "rope-proportional": rope_question("proportional", [[0, 1, 2], [40, 41, 42]]),
    "rope-jumps": rope_question("proportional", [[7, 3, 4, 100]]),
    "rope-far": rope_question("default", [[4095]]),
    "inv-freq-full": inv_freq_question("full_attention"),
    "inv-freq-sliding": inv_freq_question("sliding_attention"),
    "embedding": embedding_question(),
    "ple": ple_question(),
    "attention-full": attention_core_question(None),
    "attention-window": attention_core_question(3),
    "donors": donors_question(nested=False),
    "donors-nested": donors_question(nested=True),
    "mlp": mlp_question(),
    "gelu": gelu_question(),
    "router": router_question(),
    "experts": experts_question(),
    "softcap": softcap_question(),
    "long-sum": long_sum_question(),
    "exp-tanh": exp_tanh_question(),
}


def question_request(name: str, profile: str) -> Request:
    """The request that asks one of QUESTIONS."""
    question = QUESTIONS[name]
    return Request(
        case=f"module/{name}",
        kind=question.kind,
        profile=profile,
        params=question.params,
        inputs=question.inputs,
        want=tuple(question.expected),
    )
