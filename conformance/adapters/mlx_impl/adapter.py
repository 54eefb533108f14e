"""The suite's own MLX decoder as a port under test."""

from __future__ import annotations

import functools
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import psutil

import mlx_impl
from conformance.adapters.base import Array, Hello, PromptRequest, Refused, Request, Skip
from conformance.adapters.mlx_arrays import DTYPE_NAMES, PROFILE_DTYPES, to_mlx, to_numpy
from conformance.adapters.mlx_impl.modules import MODULES
from gemma4_contract.graph import text_graph
from gemma4_contract.recording import Pieces, Recording
from gemma4_contract.subgraph import SUBGRAPH_KINDS, Subgraph, subgraph
from mlx_impl import Decoder, MlxImplError
from mlx_impl.chat import prompt
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.checkpoint.load import held_bytes
from mlx_impl.model import rope
from mlx_impl.model.kv_cache import KV
from mlx_impl.model.taps import scope

SHARE = 0.75
"""Largest share of the free memory that weights may take; larger models are read layer by layer in every pass."""
_SKIPPED = {"ple_index": "rows of the PLE table are looked up by id: no flat index is ever computed"}


class MlxImplAdapter:
    """mlx_impl on MLX's default device."""

    def __init__(self) -> None:
        self._decoder = functools.lru_cache(maxsize=4)(_load)
        self._tokenizer = functools.lru_cache(maxsize=1)(Tokenizer.load)

    def hello(self) -> Hello:
        """The name and version of the implementation, and what it offers."""
        return Hello(
            name="mlx_impl",
            version=f"{mlx_impl.__version__} (mlx {version('mlx')})",
            language="Python",
            family="mlx",
            profiles=tuple(PROFILE_DTYPES),
            kinds=("forward", *SUBGRAPH_KINDS, *MODULES, *_SKIPPED),  # it says why it skips
            device=str(mx.default_device()),
        )

    def run(self, request: Request) -> dict[str, Array]:
        """The wanted taps, in the dtypes that mlx_impl computes them in."""
        dtype = PROFILE_DTYPES[request.profile]
        if request.model_dir is None:
            if request.kind not in MODULES:
                raise Skip(_SKIPPED.get(request.kind, f"no kind {request.kind}"))
            inputs = {name: _tensor(x, dtype) for name, x in request.inputs.items()}
            taps = MODULES[request.kind](request.params, inputs)
        else:
            decoder = self._decoder(request.model_dir, DTYPE_NAMES[request.profile])
            if request.kind == "forward":
                return _forward(decoder, request, {name: _tensor(x, dtype) for name, x in request.inputs.items()})
            if request.kind not in SUBGRAPH_KINDS:
                raise Skip(f"no kind {request.kind}")
            taps = _layer(decoder, subgraph(request.kind, request.params, request.inputs), dtype)
        return {name: to_numpy(value) for name, value in taps.items() if name in request.want}

    def prompt(self, request: PromptRequest) -> str:
        """The prompt of a conversation."""
        try:
            return prompt.render(request.messages, request.template, **request.settings())
        except MlxImplError as error:
            raise Refused(str(error)) from None

    def encode(self, text: str, tokenizer_json: Path) -> list[int]:
        """The ids of a text."""
        return self._tokenizer(tokenizer_json).encode(text)


def _load(model_dir: Path, dtype: str) -> Decoder:
    if held_bytes(model_dir, dtype) <= SHARE * psutil.virtual_memory().available:
        return mlx_impl.load(model_dir, dtype)
    return mlx_impl.load(model_dir, dtype, ple="mapped", layers="streamed")


def _tensor(x: Array, dtype: mx.Dtype) -> mx.array:
    if x.dtype.kind in "iu":
        return mx.array(x).astype(mx.bool_ if x.dtype == "uint8" else mx.int32)
    return to_mlx(x, dtype)


def _forward(decoder: Decoder, request: Request, x: dict[str, mx.array]) -> dict[str, Array]:
    """All calls of the plan; taps concatenated along L."""
    steps = request.plan.steps if request.plan else None
    length = x["ids"].shape[1]
    caches = None if steps is None else decoder.make_caches()
    pieces: Pieces[mx.array] = Pieces(request.want)
    start = 0
    for step in steps or [length]:
        rows = slice(start, start + step)
        valid = x["valid"][:, rows] if "valid" in x else None
        mx.eval(decoder(x["ids"][:, rows], x["positions"][:, rows], valid=valid, caches=caches, tap=pieces))
        start += step
    graph = text_graph()
    return {
        name: to_numpy(mx.concatenate(values, axis=graph.length_axis(name))) for name, values in pieces.taps.items()
    }


def _layer(decoder: Decoder, question: Subgraph, dtype: mx.Dtype) -> dict[str, mx.array]:
    ple = question.ple(decoder.config.hidden_size_per_layer_input)
    recording = Recording({name: to_mlx(value, dtype) for name, value in question.given.items()})
    decoder.model.layers[question.layer](
        to_mlx(question.hidden, dtype),
        mx.array(question.positions),
        rope.layer_frequencies(decoder.config, question.layer),
        ple_slice=None if ple is None else to_mlx(ple, dtype),
        shared=_donated(question, dtype),
        tap=scope(recording, f"model.layers.{question.layer}."),
    )
    return recording.taps


def _donated(question: Subgraph, dtype: mx.Dtype) -> KV | None:
    if question.donated is None:
        return None
    keys, values = (to_mlx(value, dtype) for value in question.donated)
    return KV(keys=keys, values=values, positions=mx.array(question.positions), valid=None)
