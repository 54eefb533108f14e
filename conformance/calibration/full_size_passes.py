"""The passes that set the floors of a model at full size; only one layer is in memory at a time.

Some multiply fast enough for a whole text; others sum term by term, as a plain loop does, and MLX on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import transformers

from conformance.adapters.base import Skip
from conformance.adapters.registry import create
from conformance.judging.question import Question
from gemma4_contract import Fixtures, Plan
from gemma4_contract.models import Variant
from gemma4_contract.progress import Progress
from gemma4_contract.tensors import Array
from reference.export.full_size_transformers import transformers_taps
from reference.full_size import SLICES
from reference.oracle.arithmetic import BF16_EVERY_OP, F64, PROFILES, Arithmetic
from reference.oracle.decoder import Decoder
from reference.streaming import forward
from reference.streaming.arithmetic import streamed
from reference.streaming.source import Source
from reference.streaming.stored_taps import StoredTap, StoredTapRecorder, stored_counts

Pass = Callable[[Array, Sequence[int], Progress], Iterator[tuple[Variant, dict[str, StoredTap]]]]
"""A pass: it yields (variant, stored taps) for ids [1, L] at these rows."""
BLAS, EVERY_OP, GOLDEN = "oracle blas", "oracle every op", "float64"


def whole_text(source: Source, whole: Question, profile: str) -> list[Pass]:
    """The fast passes: the oracle, plain and fused, and transformers; in bf16 also EVERY_OP, which sets no floor."""
    every_op = {EVERY_OP: BF16_EVERY_OP} if profile == "bf16" and source.card.weights_rule is not None else {}
    return [_oracles(source, whole, _plain(profile) | every_op), _transformers(source, whole, profile)]


def first_tokens(source: Source, whole: Question, full: Fixtures, profile: str) -> list[Pass]:
    """GOLDEN first, then the fast passes, the oracle term by term, and the MLX decoders if the weights are on disk."""
    sequential = {"oracle sequential": replace(PROFILES[profile], order="sequential")}
    passes = [
        _oracles(source, whole, {GOLDEN: F64} | _plain(profile) | sequential),
        _transformers(source, whole, profile),
    ]
    if full.model_dir(source.id).is_dir():
        names = ("mlx_impl", "mlx_lm") if source.id in SLICES else ("mlx_impl",)  # mlx-lm needs the whole model
        passes += [_adapter(name, source, whole, profile) for name in names]
    return passes


def _plain(profile: str) -> dict[str, Arithmetic]:
    return {BLAS: PROFILES[profile], "oracle fused": replace(PROFILES[profile], fused=True)}


def _oracles(source: Source, whole: Question, arithmetics: Mapping[str, Arithmetic]) -> Pass:
    """The oracle in several arithmetics, which take turns at each layer so that its weights are made once."""

    def run(ids: Array, rows: Sequence[int], progress: Progress) -> Iterator[tuple[Variant, dict[str, StoredTap]]]:
        recorders = {name: _recorder(source, whole, ids, rows) for name in arithmetics}
        decoders = {
            name: Decoder(source.config, source.weights(one.dtype), streamed(one)) for name, one in arithmetics.items()
        }
        turns = [forward.layer_by_layer(decoders[name], ids, recorders[name], progress) for name in arithmetics]
        for _ in zip(*turns, strict=True):
            pass
        for name, recorder in recorders.items():
            yield Variant(name=name, family="numpy", version=np.__version__), recorder.taps

    return run


def _transformers(source: Source, whole: Question, profile: str) -> Pass:
    versions = f"{transformers.__version__}, torch {torch.__version__}"
    variant = Variant(name="transformers streamed", family="torch", version=versions)

    def run(ids: Array, rows: Sequence[int], progress: Progress) -> Iterator[tuple[Variant, dict[str, StoredTap]]]:
        yield variant, transformers_taps(source, ids, profile, progress, _vocabulary(whole), rows)

    return run


def _adapter(name: str, source: Source, whole: Question, profile: str) -> Pass:
    """An implementation as the judge asks it."""
    adapter = create(name)
    hello = adapter.hello()
    variant = Variant(name=name, family=hello.family, version=hello.version)

    def run(ids: Array, rows: Sequence[int], progress: Progress) -> Iterator[tuple[Variant, dict[str, StoredTap]]]:
        progress(0, 1, name)
        inputs = {"ids": ids, "positions": np.arange(ids.shape[1], dtype=np.int32)[None]}
        try:
            answer = adapter.run(replace(whole.request(profile), plan=Plan(steps=None), inputs=inputs))
        except Skip:
            return
        recorder = _recorder(source, whole, ids, rows)
        for tap in stored_counts(source.config):
            if tap in answer:
                recorder(tap, answer[tap])
        yield variant, recorder.taps

    return run


def _recorder(source: Source, whole: Question, ids: Array, rows: Sequence[int]) -> StoredTapRecorder:
    return StoredTapRecorder(config=source.config, length=ids.shape[1], rows=rows, vocabulary=_vocabulary(whole))


def _vocabulary(whole: Question) -> Sequence[int]:
    """The entries of `logits` that the golden holds."""
    return whole.stored.taps["logits"].numbers("V")
