"""The modules in plain Python floats, without any library: the shortest port, and an independent float64 family.

Sums are taken term by term, and theta^-x is exp(-x log theta), as in ports in C and JavaScript.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from conformance.adapters.base import Array, Hello, Request, Skip

Params = Mapping[str, Any]
Inputs = Mapping[str, Array]
Taps = dict[str, Array]


class PurePythonAdapter:
    """Python's own arithmetic, in f64 only."""

    def hello(self) -> Hello:
        """The name and version of the implementation, and what it offers."""
        return Hello(
            name="pure Python",
            version=platform.python_version(),
            language="Python",
            family="python",
            profiles=("f64",),
            kinds=tuple(_MODULES),
            device="cpu",
        )

    def run(self, request: Request) -> Taps:
        """The taps of a module case; Skip for every other."""
        if request.kind not in _MODULES:
            raise Skip(f"no {request.kind} in plain Python")
        taps = _MODULES[request.kind](request.params, request.inputs)
        return {name: value for name, value in taps.items() if name in request.want}


def _rows(x: Array) -> list[list[float]]:
    return [[float(value) for value in row] for row in x.reshape(-1, x.shape[-1])]


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    total = 0.0
    for one, other in zip(a, b, strict=True):
        total += one * other
    return total


def _each(x: Array, function: Callable[[float], float]) -> Array:
    return np.array([function(float(value)) for value in x.ravel()]).reshape(x.shape)


def _linear(p: Params, x: Inputs) -> Taps:
    weight = _rows(x["weight"])
    return {"y": np.array([[_dot(row, column) for column in weight] for row in _rows(x["x"])])}


def _rms_norm(p: Params, x: Inputs) -> Taps:
    weight = [float(value) for value in x["weight"]] if "weight" in x else [1.0] * x["x"].shape[-1]
    normed = []
    for row in _rows(x["x"]):
        factor = 1.0 / math.sqrt(_dot(row, row) / len(row) + p["eps"])
        normed.append([value * factor * scale for value, scale in zip(row, weight, strict=True)])
    return {"y": np.array(normed).reshape(x["x"].shape)}


def _rope(p: Params, x: Inputs) -> Taps:
    batch, heads, length, head_dim = x["x"].shape
    pairs = head_dim // 2
    turning = int(p["partial_rotary_factor"] * pairs) if p["rope_type"] == "proportional" else pairs
    y = np.zeros(x["x"].shape)
    for b, h, position in np.ndindex(batch, heads, length):
        row = x["x"][b, h, position]
        for j in range(pairs):
            frequency = math.exp(-(2 * j / head_dim) * math.log(p["rope_theta"])) if j < turning else 0.0
            angle = int(x["positions"][b, position]) * frequency
            cos, sin, first, second = math.cos(angle), math.sin(angle), float(row[j]), float(row[j + pairs])
            y[b, h, position, j] = first * cos - second * sin
            y[b, h, position, j + pairs] = second * cos + first * sin
    return {"y": y}


def _gelu_tanh(p: Params, x: Inputs) -> Taps:
    root = math.sqrt(2.0 / math.pi)
    return {"y": _each(x["x"], lambda v: 0.5 * v * (1.0 + math.tanh(root * (v + 0.044715 * v**3))))}


def _softcap(p: Params, x: Inputs) -> Taps:
    return {"y": _each(x["x"], lambda v: p["cap"] * math.tanh(v / p["cap"]))}


def _long_sum(p: Params, x: Inputs) -> Taps:
    return {"y": np.array([_dot(row, [1.0] * len(row)) for row in _rows(x["x"])])}


def _exp_tanh(p: Params, x: Inputs) -> Taps:
    return {"exp": _each(x["x"], math.exp), "tanh": _each(x["x"], math.tanh)}


def _ple_index(p: Params, x: Inputs) -> Taps:
    offset = (p["id"] * p["num_layers"] + p["layer"]) * p["width"] + p["channel"]
    return {"offset": np.array([ord(digit) for digit in str(offset)], np.uint8)}


_MODULES: Mapping[str, Callable[[Params, Inputs], Taps]] = {
    "linear": _linear,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "gelu_tanh": _gelu_tanh,
    "softcap": _softcap,
    "long_sum": _long_sum,
    "exp_tanh": _exp_tanh,
    "ple_index": _ple_index,
}
