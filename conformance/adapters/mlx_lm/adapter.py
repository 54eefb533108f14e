"""The released mlx-lm as an independent port under test: its own Gemma 4 code, run and observed, never copied.

B batch, L query length, S key length, D hidden, K key/value heads, E head dim, P per-layer width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import BatchKVCache, BatchRotatingKVCache, RotatingKVCache

from conformance.adapters.base import Array, Hello, Request, Skip
from conformance.adapters.mlx_arrays import PROFILE_DTYPES, to_mlx, to_numpy
from conformance.adapters.mlx_lm.load import load_model
from conformance.adapters.mlx_lm.modules import MODULES
from conformance.adapters.mlx_lm.prompts import MlxLmPrompts
from conformance.adapters.mlx_lm.taps import tapped_model
from gemma4_contract import Plan
from gemma4_contract.subgraph import SUBGRAPH_KINDS, answerable, subgraph

MOE_ON_CPU = "mx.gather_mm is float32 only on the CPU"


class MlxLmAdapter(MlxLmPrompts):
    """mlx-lm's Gemma 4 text decoder, its modules and its caches."""

    def __init__(self) -> None:
        """Keep the two models loaded last, because the cases of a model follow each other."""
        self._load = lru_cache(maxsize=2)(load_model)

    def hello(self) -> Hello:
        """The name and version of mlx-lm, and what this adapter offers."""
        return Hello(
            name="mlx-lm",
            version=version("mlx-lm"),
            language="Python",
            family="mlx",
            profiles=tuple(PROFILE_DTYPES),
            kinds=("forward", *SUBGRAPH_KINDS, *MODULES),
            device=str(mx.default_device()),
        )

    def run(self, request: Request) -> dict[str, Array]:
        """The wanted taps that mlx-lm offers, in the profile's dtype.

        Skip for a profile, kind, plan or positions that mlx-lm does not support.
        """
        if request.profile not in PROFILE_DTYPES:
            raise Skip(f"profile {request.profile} is not offered by mlx-lm, which has f32, bf16 and f16")
        dtype = PROFILE_DTYPES[request.profile]
        if request.kind in MODULES:
            if request.kind == "experts" and _lacks_gather(dtype):
                raise Skip(MOE_ON_CPU)
            answers = MODULES[request.kind](request.params, request.inputs, dtype)
        elif request.kind == "forward":
            answers = _forward(self._model(request, dtype), request)
        elif request.kind in SUBGRAPH_KINDS:
            answers = _layer(self._model(request, dtype), request, dtype)
        else:
            raise Skip(f"mlx-lm has no {request.kind} to ask alone")
        return {name: to_numpy(answers[name]) for name in request.want if name in answers}

    def _model(self, request: Request, dtype: mx.Dtype) -> Any:
        if request.model_dir is None:
            raise ValueError(f"{request.case}: got no model directory, expected one for kind {request.kind}")
        model = self._load(Path(request.model_dir), dtype)
        if model.args.enable_moe_block and _lacks_gather(dtype) and request.kind != "attention":
            raise Skip(MOE_ON_CPU)
        return model


def _lacks_gather(dtype: mx.Dtype) -> bool:
    return dtype != mx.float32 and mx.default_device().type == mx.DeviceType.cpu


def _forward(model: Any, request: Request) -> dict[str, mx.array]:
    """Run a plan with a fresh cache, or without one; taps joined over its calls."""
    ids = to_mlx(request.inputs["ids"], mx.int32)  # B L
    plan = request.plan or Plan()
    _refuse_other_positions(request.inputs, ids.shape, plan.left_pad)
    if plan.steps is None and plan.left_pad is not None:
        raise Skip("no padded batch without a cache")
    steps = [ids.shape[1]] if plan.steps is None else plan.steps
    if sum(steps) != ids.shape[1]:
        raise ValueError(f"{request.case}: got steps {steps}, expected them to add up to {ids.shape[1]} tokens")
    cache = None if plan.steps is None else _cache(model, plan.left_pad)
    with tapped_model(model, request.want) as records:
        start = 0
        for size in steps:
            logits = model(ids[:, start : start + size], cache=cache)
            if "logits" in request.want:
                records.add("logits", logits)
            records.evaluate()
            start += size
    return records.joined()


def _cache(model: Any, left_pad: list[int] | None) -> list[Any]:
    """A fresh cache for each own-KV layer, of mlx-lm's batch kind when rows are padded."""
    plain = model.make_cache()
    if left_pad is None:
        return list(plain)
    return [
        BatchRotatingKVCache(cache.max_size, left_pad) if isinstance(cache, RotatingKVCache) else BatchKVCache(left_pad)
        for cache in plain
    ]


def _layer(model: Any, request: Request, dtype: mx.Dtype) -> dict[str, mx.array]:
    """One decoder layer on given inputs without a cache, its own taps overwritten by the given values."""
    question = subgraph(request.kind, request.params, request.inputs)
    layer = model.layers[question.layer]
    hidden = to_mlx(question.hidden, dtype)  # B L D
    _refuse_other_positions(request.inputs, hidden.shape, None)
    shared: tuple[mx.array, mx.array] | None = None
    if question.donated is not None and not layer.self_attn.has_kv:
        keys, values = (to_mlx(value, dtype) for value in question.donated)  # B K S E
        if keys.shape[2] != hidden.shape[1]:
            raise Skip("no more keys than queries without a cache")
        shared = keys, values
    window = model.model.window_size if layer.self_attn.is_sliding else None
    mask = create_attention_mask(hidden, None, window_size=window)
    offset = None if shared is None else 0
    ple = question.ple(model.args.hidden_size_per_layer_input)
    given = {name: to_mlx(value, dtype) for name, value in question.given.items()}
    with tapped_model(model, {*request.want, *given}, given) as records:
        per_layer = None if ple is None else to_mlx(ple, dtype)  # B L P
        output, *_ = layer(hidden, mask, None, per_layer_input=per_layer, shared_kv=shared, offset=offset)
        records.add(f"model.layers.{question.layer}.output", output)
    answers = records.joined()
    return {name: answers[name] for name in answerable(question, answers, records.replaced)}


def _refuse_other_positions(inputs: Mapping[str, Array], shape: tuple[int, ...], left_pad: list[int] | None) -> None:
    """Skip unless the positions are those that mlx-lm uses: 0 to n-1 in every row, without the pads."""
    pads = np.zeros(shape[0], np.int64) if left_pad is None else np.array(left_pad)
    counted = np.maximum(np.arange(shape[1]) - pads[:, None], 0)
    if "positions" in inputs and not np.array_equal(inputs["positions"], counted):
        raise Skip("mlx-lm counts positions from 0 and takes no others")
