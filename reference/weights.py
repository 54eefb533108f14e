"""Weights by rule `int8-splitmix64-v1`: every parameter is a formula that any language computes exactly.

q(name, i) = int8(splitmix64(fnv1a64(utf8(name)) + i) >> 56), all arithmetic modulo 2^64, i the row-major index.
Matrices: w = q * 2^-k with k = round(log2(73.9 * sqrt(fan_in))). Norms: w = bf16((1 + q/256) * base).
`name` is `<model id>/<tensor name in Gemma4ForCausalLM's state dict>`. docs/FIXTURES.md gives it line by line.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace

import ml_dtypes
import numpy as np
import numpy.typing as npt

from gemma4_contract.expand import weight_shapes
from gemma4_contract.graph import text_graph
from reference.config import TextConfig

Float64 = npt.NDArray[np.float64]

_MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""SplitMix64's constants: the step, and its shifts with their multipliers."""

LAYER_SCALARS = (0.8984375, 1.1015625, 0.953125, 0.984375, 1.046875)
"""Cycle of `layer_scalar` over the layers: never 1, product near 1."""

MINI_LAYER_SCALARS = {1: 0.005, 2: 1.3}
"""Extremes of `layer_scalar` that the miniatures put into two early layers."""


def bf16(value: npt.ArrayLike) -> Float64:
    """Round to the nearest bfloat16 (ties to even), as float64."""
    return np.asarray(value, np.float64).astype(ml_dtypes.bfloat16).astype(np.float64)


def fnv1a64(name: str) -> int:
    """64-bit FNV-1a hash of the UTF-8 bytes of `name`."""
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & _MASK
    return digest


def splitmix64(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output of one step of SplitMix64 from each state (uint64, any shape)."""
    z = state + np.uint64(GAMMA)
    _mix(z, np.empty_like(z))
    return z ^ (z >> np.uint64(31))


def _mix(z: npt.NDArray[np.uint64], shifted: npt.NDArray[np.uint64]) -> None:
    """SplitMix64's two multiplications, in place; `shifted` is room of the same shape."""
    for shift, factor in MIX:
        np.right_shift(z, np.uint64(shift), out=shifted)
        np.bitwise_xor(z, shifted, out=z)
        np.multiply(z, np.uint64(factor), out=z)


def hash_words(name: str, start: int, stop: int) -> npt.NDArray[np.uint64]:
    """splitmix64(fnv1a64(name) + i) for i in start..stop-1."""
    base = np.uint64((fnv1a64(name) + start) & _MASK)
    return splitmix64(base + np.arange(stop - start, dtype=np.uint64))


_PIECE = 1 << 15
"""Elements hashed at a time: their words stay in the processor's cache."""


def q(name: str, start: int, stop: int) -> npt.NDArray[np.int8]:
    """The signed top byte of each hash word: int8 values of standard deviation 73.9."""
    base, made = fnv1a64(name) + start + GAMMA, np.empty(stop - start, np.int8)
    counted = np.arange(_PIECE, dtype=np.uint64)
    word, shifted = np.empty_like(counted), np.empty_like(counted)
    for first in range(0, stop - start, _PIECE):
        np.add(counted, np.uint64((base + first) & _MASK), out=word)
        _mix(word, shifted)
        # SplitMix64's last step, z ^ (z >> 31), leaves the top byte as it is.
        top = word.astype("<u8", copy=False).view(np.int8)[7::8]
        made[first : first + _PIECE] = top[: stop - start - first]
    return made


def matrix_exponent(fan_in: int) -> int:
    """k of a matrix's weights q * 2^-k."""
    return round(math.log2(73.9 * math.sqrt(fan_in)))


def matrix(name: str, shape: tuple[int, ...], fan_in: int) -> Float64:
    """A weight matrix of standard deviation near 1/sqrt(fan_in), exact in bfloat16."""
    return (q(name, 0, math.prod(shape)).astype(np.float64) * 2.0 ** -matrix_exponent(fan_in)).reshape(shape)


def norm(name: str, width: int, base: float) -> Float64:
    """A norm weight within half to one and a half times `base` (itself rounded to bfloat16)."""
    return bf16((1.0 + q(name, 0, width) / 256.0) * bf16(base))


def signed_norm(name: str, width: int, base: float) -> Float64:
    """A norm weight whose signs come from a second hash of `name + "#sign"`."""
    signs = np.where(q(name + "#sign", 0, width) < 0, -1.0, 1.0)
    return norm(name, width, base) * signs


def per_expert_scale(name: str, experts: int) -> Float64:
    """bf16(2^(q/80)): 0.33 to 3."""
    return EXP2_TABLE[q(name, 0, experts).astype(np.int64) + 128]


EXP2_TABLE: Float64 = bf16(np.exp2(np.arange(-128, 128) / 80.0))
"""bf16(2^(q/80)) for q = -128..127; FIXTURES.md lists the bit patterns, since exp2 is not exact in every language."""


def layer_scalar(layer: int, *, mini: bool) -> Float64:
    """`layer_scalar` of a layer, shape [1]."""
    value = LAYER_SCALARS[layer % len(LAYER_SCALARS)]
    if mini:
        value = MINI_LAYER_SCALARS.get(layer, value)
    return bf16([value])


def layer_norm_bases(config: TextConfig, layer: int, *, mini: bool) -> Mapping[str, float]:
    """Base of every norm weight of a layer, by its name below `model.layers.{i}.`."""
    # Scores have standard deviation about 1.4 at any E; 20 to 30 are reached in the last full layer alone,
    # where low-precision softmax breaks and no layer is left for the error to grow in.
    q_norm = (5.6 if layer == config.last_full_layer else 1.4) / math.sqrt(config.head_dim_of(layer))
    return {
        "input_layernorm": 1.0,
        "self_attn.q_norm": q_norm,
        "self_attn.k_norm": 1.0,
        "post_attention_layernorm": 0.25,
        "pre_feedforward_layernorm": 1.0,
        "pre_feedforward_layernorm_2": 1.0,
        "post_feedforward_layernorm": 0.25,
        "post_feedforward_layernorm_1": 0.25,
        # At full size low precision chooses other experts for nearly every token: they weigh half as much there.
        "post_feedforward_layernorm_2": 0.25 if mini else 0.125,
        "post_per_layer_input_norm": 0.25,
    }


@functools.lru_cache(maxsize=64)
def tensor_shapes(config: TextConfig, *, redundant_shared_kv: bool = False) -> Mapping[str, tuple[int, ...]]:
    """Shape of every tensor of Gemma4ForCausalLM's state dict, the tied head aside, in the order of the graph's nodes.

    With `redundant_shared_kv`, KV-shared layers also have the tensors of keys and values, which nothing may read.
    """
    shapes = weight_shapes(text_graph(), config)
    if not redundant_shared_kv:
        return shapes
    unshared = weight_shapes(text_graph(), replace(config, num_kv_shared_layers=0))
    return {name: shapes.get(name, shape) for name, shape in unshared.items()}


def fan_in(name: str, shape: tuple[int, ...], config: TextConfig) -> int:
    """The fan-in that a matrix is scaled by: its last axis, P for the table of per-layer embeddings."""
    per_layer = name == "model.embed_tokens_per_layer.weight"
    return config.hidden_size_per_layer_input if per_layer else shape[-1]


def tensor(model_id: str, name: str, shape: tuple[int, ...], config: TextConfig, *, mini: bool) -> Float64:
    """One tensor by the rule, float64 values that bfloat16 holds exactly."""
    key = f"{model_id}/{name}"
    if name == "model.norm.weight":
        return signed_norm(key, shape[0], 20.0)
    if name == "model.per_layer_projection_norm.weight":
        return norm(key, shape[0], 1.0)
    if not name.startswith("model.layers."):
        return matrix(key, shape, fan_in(name, shape, config))
    _, _, index, inner = name.split(".", 3)
    if inner == "layer_scalar":
        return layer_scalar(int(index), mini=mini)
    if inner == "router.scale":
        return norm(key, shape[0], 1.5 * math.sqrt(config.hidden_size))
    if inner == "router.per_expert_scale":
        return per_expert_scale(key, shape[0])
    bases = layer_norm_bases(config, int(index), mini=mini)
    base = bases.get(inner.removesuffix(".weight"))
    return matrix(key, shape, shape[-1]) if base is None else norm(key, shape[0], base)


def weights(model_id: str, config: TextConfig, *, mini: bool, redundant_shared_kv: bool = False) -> dict[str, Float64]:
    """All tensors of a model by the rule."""
    shapes = tensor_shapes(config, redundant_shared_kv=redundant_shared_kv)
    return {name: tensor(model_id, name, shape, config, mini=mini) for name, shape in shapes.items()}
