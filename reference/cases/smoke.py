"""Smoke cases: reading and writing files, and the weights by rule. All answers must be equal to the bit.

Each holds the answers of the usual slips, so that a port learns from one sentence what it does wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gemma4_contract.tensors import Array
from reference import weights
from reference.cases.draft import Draft, WrongAnswer, tap
from reference.inputs import values

_REVERSED = "the bytes of every number stand in reverse order: safetensors is little-endian"
_ROW_MAJOR = "tensors are read or written column by column: safetensors is row-major, the last axis runs fastest"


def drafts() -> Iterator[Draft]:
    """The smoke cases; there is nothing to draw."""
    yield _echo()
    yield _square()
    yield from _weights()


def _smoke(name: str, purpose: str, lookalikes: list[WrongAnswer], **fields: Any) -> Draft:
    kind = name.partition("/")[0]
    return Draft(
        id=f"module/{name}",
        kind=kind,
        level="L0",
        topic="arithmetic" if kind == "linear" else "smoke",
        purpose=purpose,
        exact=True,
        lookalikes=lookalikes,
        **fields,
    )


def _echo() -> Draft:
    x = values("echo/dtypes-and-axes#x", (2, 3, 4)).astype(np.float32)
    ids = np.array([[262143, 200, 100], [2, 65280, 511]], np.int32)
    backwards = ids.byteswap().sum(1, dtype=np.int32).byteswap()  # reversed when read and when written
    slips = [
        WrongAnswer(tap="x", slip="bytes", answer=x.byteswap(), advice=_REVERSED),
        WrongAnswer(tap="x", slip="read-columns", answer=x.ravel().reshape(x.shape, order="F"), advice=_ROW_MAJOR),
        WrongAnswer(tap="x", slip="written-columns", answer=x.ravel("F").reshape(x.shape), advice=_ROW_MAJOR),
        WrongAnswer(
            tap="x",
            slip="shape",
            answer=x.reshape(x.shape[::-1]),
            advice="shapes are read or written backwards: the first number of a shape is the outermost axis",
        ),
        WrongAnswer(
            tap="x",
            slip="axes",
            answer=x.T,
            advice="all axes of a tensor are transposed: safetensors is row-major, the first axis is the outermost",
        ),
        WrongAnswer(tap="ids", slip="bytes", answer=ids.byteswap(), advice=_REVERSED),
        WrongAnswer(
            tap="sum", slip="bytes", answer=backwards, advice=f"{_REVERSED}; here reading and writing both err"
        ),
    ]
    return _smoke(
        "echo/dtypes-and-axes",
        "Tensors of three dtypes come back as they went, and the sum of the ids of each row.",
        slips,
        inputs={"x": x, "ids": ids, "mask": np.array([[1, 0, 1], [0, 1, 1]], np.uint8)},
        taps=[tap("x", "B L D"), tap("ids", "B L"), tap("mask", "B L"), tap("sum", "B", "ids")],
    )


def _square() -> Draft:
    x = np.array([[1, -2, 3, 0], [4, 5, -6, 1], [0, 7, 2, -3], [-5, 1, 6, 2]], np.float32)
    weight = np.array([[2, 0, -1, 3], [-4, 6, 1, 5], [7, -3, 0, 2], [1, 2, 4, -7]], np.float32)
    slips = [
        WrongAnswer(
            tap="y",
            slip="not-transposed",
            answer=x @ weight,
            advice="y = x W was computed: a weight is stored [out, in], so y = x W^T",
        ),
        WrongAnswer(tap="y", slip="columns", answer=weight.T @ x, advice=_ROW_MAJOR),
        WrongAnswer(tap="y", slip="columns-in", answer=x.T @ weight, advice=_ROW_MAJOR),
        WrongAnswer(tap="y", slip="columns-out", answer=weight @ x.T, advice=_ROW_MAJOR),
    ]
    return _smoke(
        "linear/square",
        "A square weight of whole numbers that every dtype holds, to be multiplied the right way round.",
        slips,
        inputs={"x": x, "weight": weight},
        taps=[tap("y", "L F")],
    )


def _weights() -> Iterator[Draft]:
    projection = "e2b-mini/model.layers.0.self_attn.q_proj.weight"
    yield _rule("matrix", "A matrix.", projection, {"formula": "matrix", "fan_in": 96})
    yield _rule(
        "beyond-int32",
        "Elements of the PLE table of E2B whose index no signed 32-bit integer holds.",
        "e2b-full/model.embed_tokens_per_layer.weight",
        {"formula": "matrix", "fan_in": 256},
        first=2348810224,
    )
    q_norm = "e2b-mini/model.layers.0.self_attn.q_norm.weight"
    yield _rule(
        "norm", "A norm's weight, its base rounded as well.", q_norm, {"formula": "norm", "base": 1.4 / 16**0.5}
    )
    yield _rule(
        "signed-norm",
        "The last norm's weight, whose signs come from a second hash.",
        "e2b-mini/model.norm.weight",
        {"formula": "signed-norm", "base": 20.0},
    )
    scale = "26b-a4b-mini/model.layers.0.router.per_expert_scale"
    yield _rule("per-expert-scale", "Powers of two that are not whole.", scale, {"formula": "per-expert-scale"})


def _rule(name: str, purpose: str, tensor: str, formula: Mapping[str, Any], *, first: int = 0) -> Draft:
    count = 256
    params = {"name": tensor, "first": first, "count": count, **formula}
    hashed = [
        WrongAnswer(tap="q", slip=slip, answer=answer.astype(np.int32), advice=advice)
        for slip, answer, advice in _wrong_hashes(tensor, first, count)
    ]
    valued = [
        WrongAnswer(tap="y", slip=slip, answer=answer.astype(np.float32), advice=advice)
        for slip, answer, advice in _wrong_values(tensor, params)
    ]
    taps = [tap("q", "L"), tap("y", "L", "q")]
    return _smoke(f"weights/{name}", purpose, [*hashed, *valued], params=params, taps=taps)


def _wrong_hashes(name: str, first: int, count: int) -> Iterator[tuple[str, Array, str]]:
    words = weights.hash_words(name, first, first + count)
    right = weights.q(name, first, first + count)
    yield "unsigned", right.view(np.uint8), "the top byte of the hash is a signed number: -128 to 127"
    low = (words & np.uint64(255)).astype(np.uint8).view(np.int8)
    yield "low-byte", low, "q is the top byte of the hash, not the lowest"
    bare = name.partition("/")[2]
    yield "no-model", weights.q(bare, first, first + count), "the hashed name begins with the id of the model and '/'"
    states = np.uint64(_fnv1(name)) + np.uint64(first) + np.arange(count, dtype=np.uint64)
    yield "fnv-1", _top(weights.splitmix64(states)), "this is FNV-1: FNV-1a takes the byte in first, then multiplies"
    counted = np.uint64(weights.fnv1a64(name)) + np.uint64(first) + np.arange(count, dtype=np.uint64)
    unstepped = _top(weights.splitmix64(counted - np.uint64(0x9E3779B97F4A7C15)))
    yield "no-increment", unstepped, "SplitMix64 adds 0x9e3779b97f4a7c15 before it mixes"
    if first >= 2**31:
        wrapped = _top(weights.splitmix64(counted - np.uint64(2**32)))
        yield "int32", wrapped, "the index ran over in a signed 32-bit integer: count elements in 64 bits"


def _wrong_values(name: str, params: Mapping[str, Any]) -> Iterator[tuple[str, Array, str]]:
    count = params["count"]
    if "base" not in params:
        return
    plain = 1.0 + weights.q(name, 0, count) / 256.0
    base = weights.bf16(params["base"])
    signs = np.ones(count)
    if params["formula"] == "signed-norm":
        yield "no-signs", weights.norm(name, count, params["base"]), "the signs of model.norm are missing"
        same = np.where(weights.q(name, 0, count) < 0, -1.0, 1.0)
        own = weights.norm(name, count, params["base"]) * same
        yield "own-signs", own, "the signs of model.norm come from a second hash: of the name with '#sign' after it"
        signs = np.where(weights.q(f"{name}#sign", 0, count) < 0, -1.0, 1.0)
    yield "unrounded", plain * base * signs, "a norm's weight is rounded to bfloat16"
    yield (
        "truncated",
        _truncated(plain * base) * signs,
        "bfloat16 rounds to the nearest, ties to even: bits were cut off",
    )
    if base != params["base"]:
        late = weights.bf16(plain * params["base"]) * signs
        yield "exact-base", late, "the base of a norm's weight is rounded to bfloat16 before it is used"


def _fnv1(name: str) -> int:
    """FNV-1, which multiplies first."""
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = ((digest * 0x100000001B3) & (2**64 - 1)) ^ byte
    return digest


def _top(words: Array) -> Array:
    return (words >> np.uint64(56)).astype(np.uint8).view(np.int8)


def _truncated(x: Array) -> Array:
    """A float32's upper half."""
    upper = x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return upper.view(np.float32)
