"""The weight rule once more, in Python integers and fractions: one value at a time, no NumPy, nothing of ours."""

import math
from collections.abc import Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

MASK = 2**64 - 1


def fnv1a64(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    digest = 14695981039346656037
    for byte in data:
        digest = (digest ^ byte) * 1099511628211 & MASK
    return digest


def splitmix64(state: int) -> int:
    """The output that SplitMix64 gives from this state."""
    z = state + 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def word(name: str, index: int) -> int:
    """The 64-bit hash word of an element."""
    return splitmix64(fnv1a64(name.encode()) + index & MASK)


def q(name: str, index: int) -> int:
    """The signed top byte of the word."""
    top = word(name, index) >> 56
    return top - 256 if top >= 128 else top


def to_bf16(value: Fraction) -> Fraction:
    """The nearest number with 8 significant bits, ties to even."""
    if value == 0:
        return value
    exponent = math.frexp(float(value))[1] - 8  # |value| in [2^(exponent + 7), 2^(exponent + 8))
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent  # Fraction rounds half to even


def exp2(numerator: int, denominator: int) -> Fraction:
    """2^(numerator / denominator) to 40 digits."""
    with localcontext(prec=40):
        return Fraction(Decimal(2) ** (Decimal(numerator) / Decimal(denominator)))


def matrix_exponent(fan_in: int) -> int:
    """k = round(log2(73.9 sqrt(fan_in))), from (73.9 sqrt(fan_in))^2 in [2^(2k - 1), 2^(2k + 1))."""
    square = Fraction(739, 10) ** 2 * fan_in
    k = 0
    while square >= Fraction(2) ** (2 * k + 1):
        k += 1
    return k


CYCLE = (0.8984375, 1.1015625, 0.953125, 0.984375, 1.046875)
QUARTER_NORMS = (
    "post_attention_layernorm.weight",
    "post_feedforward_layernorm.weight",
    "post_feedforward_layernorm_1.weight",
    "post_feedforward_layernorm_2.weight",
    "post_per_layer_input_norm.weight",
)
PLAIN_NORMS = (
    "input_layernorm.weight",
    "pre_feedforward_layernorm.weight",
    "pre_feedforward_layernorm_2.weight",
    "self_attn.k_norm.weight",
    "model.per_layer_projection_norm.weight",
)


def element(model_id: str, name: str, index: int, shape: tuple[int, ...], raw: Mapping[str, Any]) -> Fraction:
    """One element of a mini's tensor by the table of docs/FIXTURES.md; `raw` is the text configuration."""
    key, width = f"{model_id}/{name}", raw["hidden_size"]
    inner = name.split(".", 3)[3] if name.startswith("model.layers.") else name
    layer = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
    if inner == "layer_scalar":
        return to_bf16(Fraction({1: 0.005, 2: 1.3}.get(layer, CYCLE[layer % 5])))
    if inner == "router.per_expert_scale":
        return to_bf16(exp2(q(key, index), 80))
    base = None
    if inner in PLAIN_NORMS:
        base = 1.0
    elif inner in QUARTER_NORMS:
        base = 0.25
    elif inner == "router.scale":
        base = 1.5 * math.sqrt(width)
    elif inner == "model.norm.weight":
        base = -20.0 if q(key + "#sign", index) < 0 else 20.0
    elif inner == "self_attn.q_norm.weight":
        types = raw["layer_types"]
        hot = layer == max(i for i, kind in enumerate(types) if kind == "full_attention")
        head_dim = raw["global_head_dim" if types[layer] == "full_attention" else "head_dim"]
        base = (5.6 if hot else 1.4) / math.sqrt(head_dim)
    if base is not None:
        return to_bf16((1 + Fraction(q(key, index), 256)) * to_bf16(Fraction(base)))
    fan_in = raw["hidden_size_per_layer_input"] if inner == "model.embed_tokens_per_layer.weight" else shape[-1]
    return q(key, index) * Fraction(2) ** -matrix_exponent(fan_in)
