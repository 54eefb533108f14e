"""The weight rule a second time, in Python's integers and fractions: value by value, without `reference.weights`."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

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


def weight(formula: str, name: str, index: int, *, fan_in: int | None = None, base: float | None = None) -> Fraction:
    """One weight by the formula of its kind of parameter: `matrix`, `norm`, `signed-norm` or `per-expert-scale`."""
    if formula == "per-expert-scale":
        return to_bf16(exp2(q(name, index), 80))
    if fan_in is not None:
        return q(name, index) * Fraction(2) ** -matrix_exponent(fan_in)
    assert base is not None
    sign = -1 if formula == "signed-norm" and q(name + "#sign", index) < 0 else 1
    return sign * to_bf16((1 + Fraction(q(name, index), 256)) * to_bf16(Fraction(base)))
