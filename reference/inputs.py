"""Inputs by rule: the hash of the weights, with the name of the case, so that names are seeds."""

from __future__ import annotations

import math

import numpy as np

from reference.weights import Float64, bf16, hash_words, q


def values(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Float64:
    """Values of standard deviation near `scale`, exact in bfloat16: q * 2^-k."""
    exponent = round(math.log2(73.9 / scale))
    return (q(name, 0, math.prod(shape)).astype(np.float64) * 2.0**-exponent).reshape(shape)


def full_precision(name: str, shape: tuple[int, ...]) -> Float64:
    """Values in [-1, 1) with all 24 bits of a float32 in use, which TF32 cannot hold."""
    words = hash_words(name, 0, math.prod(shape)) >> np.uint64(40)
    return (words.astype(np.float64) * 2.0**-23 - 1.0).reshape(shape)


def token_ids(name: str, length: int, vocab: int) -> np.ndarray:
    """Token ids [1, L] I32 in 1..V-1 (0 is the pad); from three tokens on, the last is V - 1."""
    words = hash_words(name, 0, length) >> np.uint64(32)
    ids = (words % np.uint64(vocab - 1) + np.uint64(1)).astype(np.int32)
    if length > 2:
        ids[-1] = vocab - 1
    return ids[None]


def grid(start: float, stop: float, count: int) -> Float64:
    """Evenly spaced values rounded to bfloat16, each once, ascending."""
    return np.unique(bf16(np.linspace(start, stop, count)))
