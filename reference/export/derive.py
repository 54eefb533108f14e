"""The two derivations of a golden: the oracle, and transformers in float64."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gemma4_contract import checkpoint
from gemma4_contract.profiles import installed_profiles
from gemma4_contract.subgraph import subgraph
from gemma4_contract.tensors import Array
from reference import loading
from reference.cases import Draft
from reference.config import TextConfig
from reference.export import scalar_rule
from reference.export.checkpoint import model_weights, write_checkpoint
from reference.layouts import LAYOUTS, Layout
from reference.models import MODELS
from reference.oracle import answers
from reference.oracle.arithmetic import F64, PROFILES
from reference.oracle.decoder import Decoder
from reference.transformers_model import TransformersModel, modules

Taps = dict[str, Array]


def by_oracle(draft: Draft) -> Taps:
    """The oracle's taps in float64, or in the arithmetic of the profile that the case is exact in."""
    if draft.model is None:
        return answers.module(draft.kind, draft.params, draft.inputs, PROFILES[draft.exact_in or "f64"])
    decoder = _oracle(draft.model)
    if draft.kind == "forward":
        return answers.forward(decoder, draft.inputs, draft.plan.steps if draft.plan else None)
    return answers.layer(decoder, subgraph(draft.kind, draft.params, draft.inputs))


def by_transformers(draft: Draft, *, lifted: bool) -> Taps:
    """transformers' taps in float64 (or the exact profile), its float32 operations lifted or not."""
    x = draft.inputs
    if draft.kind in _OTHERS:
        return _OTHERS[draft.kind][1](draft)
    if draft.model is None:
        dtype = installed_profiles()[draft.exact_in or "f64"].dtype
        return modules.answer(draft.kind, draft.params, x, dtype=dtype, lifted=lifted and draft.exact_in is None)
    model = _transformers(draft.model, lifted)
    if draft.kind == "forward":
        assert draft.plan is not None
        return model.run(x["ids"], positions=x["positions"], steps=draft.plan.steps, left_pad=draft.plan.left_pad)
    return model.run_subgraph(subgraph(draft.kind, draft.params, x))


def computable_subgraph(draft: Draft) -> Draft:
    """The smallest sub-graph that transformers computes around the nodes that it does not compute alone.

    Its attention multiplies the probabilities before it shows them; without per-layer embeddings no module takes
    `residual_2`. These are not given here.
    """
    assert draft.model is not None
    plain = not MODELS[draft.model].config.hidden_size_per_layer_input
    unfed = ("self_attn.probs", "residual_2") if plain else ("self_attn.probs",)
    names = {f"model.layers.{draft.params['layer']}.{name}" for name in unfed}
    return replace(draft, inputs={name: x for name, x in draft.inputs.items() if name not in names})


def second_derivation(kind: str) -> str:
    """The name of the second derivation of the cases of a kind."""
    return _OTHERS[kind][0] if kind in _OTHERS else "transformers float64"


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch on one thread: faster for such small products, and the same sums on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@functools.lru_cache(maxsize=2)
def _oracle(model_id: str) -> Decoder:
    if model_id in LAYOUTS:
        _, config, weights = _read_back(LAYOUTS[model_id])
        return Decoder(config, weights, F64)
    model = MODELS[model_id]
    return Decoder(model.config, model_weights(model), F64)


@functools.lru_cache(maxsize=4)
def _transformers(model_id: str, lifted: bool) -> TransformersModel:
    if model_id in LAYOUTS:
        raw, _, weights = _read_back(LAYOUTS[model_id])
        fields = checkpoint.text_part(raw)
    else:
        model = MODELS[model_id]
        fields, weights = dict(model.text_config), model_weights(model)
    return TransformersModel(fields, weights, dtype="float64", attention="eager", lifted=lifted)


def _read_back(layout: Layout) -> tuple[dict[str, Any], TextConfig, Mapping[str, Array]]:
    """config.json, configuration and weights of a layout, read from its files, because these are under test."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        stored = layout.laid_out(model_weights(layout.weights_of))
        write_checkpoint(directory, layout.config_json, stored, layout.shards)
        return checkpoint.read_config(directory), *loading.load(directory)


def _softcap(draft: Draft) -> Taps:
    """The soft cap in torch; in transformers it is inline in the model's forward."""
    x = torch.tensor(draft.inputs["x"], dtype=torch.float64)
    return {"y": (torch.tanh(x / draft.params["cap"]) * draft.params["cap"]).numpy()}


def _ple_index(draft: Draft) -> Taps:
    """NumPy's row-major index, because no implementation exposes this offset."""
    p = draft.params
    offset = np.ravel_multi_index((p["id"], p["layer"], p["channel"]), (1 << 18, p["num_layers"], p["width"]))
    return {"offset": np.frombuffer(str(int(offset)).encode(), np.uint8)}


def _echo(draft: Draft) -> Taps:
    """The inputs themselves, and a sum."""
    x = {name: torch.tensor(value) for name, value in draft.inputs.items()}
    return {name: value.numpy() for name, value in x.items()} | {"sum": x["ids"].sum(1).numpy()}


def _weights(draft: Draft) -> Taps:
    """The weights by the rule a second time, in whole numbers and fractions."""
    p = draft.params
    elements = range(p["first"], p["first"] + p["count"])
    hashed = [scalar_rule.q(p["name"], i) for i in elements]
    y = [scalar_rule.weight(p["formula"], p["name"], i, fan_in=p.get("fan_in"), base=p.get("base")) for i in elements]
    return {"q": np.array(hashed, np.int32), "y": np.array([float(value) for value in y])}


_OTHERS: Mapping[str, tuple[str, Callable[[Draft], Taps]]] = {
    "softcap": ("torch float64", _softcap),
    "ple_index": ("numpy.ravel_multi_index", _ple_index),
    "echo": ("torch", _echo),
    "weights": ("Python's integers and fractions", _weights),
}
"""Kinds that transformers does not compute: the name of their second derivation, and its function."""
