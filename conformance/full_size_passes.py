"""Who sets the floors of a model at full size: passes that stream, each layer in memory while it runs.

Some multiply fast enough for a whole text; others add up term by term, as a plain loop does and MLX on a processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import transformers

from conformance.adapters.base import Adapter, Array
from conformance.adapters.registry import create
from conformance.question import Question
from reference.export.full_size import kept
from reference.export.second import kept_by_transformers
from reference.format import Plan
from reference.format.full_size import FullSize
from reference.format.models import Profile, Variant
from reference.full_size import SLICES
from reference.oracle.arithmetic import BF16_EVERY_OP, PROFILES, Arithmetic
from reference.progress import Progress
from reference.streaming.kept import Keeper, Kept, wanted
from reference.streaming.source import Source

Pass = Callable[[Array, Sequence[int], Progress], dict[str, Kept]]
"""What is kept of a pass over ids [1, L], of these rows. Raises Skip where it cannot be had."""
BLAS, EVERY_OP = "oracle blas", "oracle every op"


def oracle(source: Source, whole: Question, arithmetic: Arithmetic) -> Pass:
    """The oracle in any arithmetic."""
    vocabulary = _vocabulary(whole)
    return lambda ids, rows, progress: kept(source, ids, arithmetic, progress, vocabulary=vocabulary, rows=rows)


def fast(source: Source, whole: Question, profile: Profile) -> dict[Variant, Pass]:
    """The oracle, plain and with fused chains, and transformers; in bf16 also EVERY_OP, which sets no floor."""
    arithmetic, vocabulary = PROFILES[profile], _vocabulary(whole)
    orders = {BLAS: arithmetic, "oracle fused": replace(arithmetic, fused=True)}
    if profile == "bf16" and source.card.weights_rule is not None:
        orders[EVERY_OP] = BF16_EVERY_OP
    versions = f"{transformers.__version__}, torch {torch.__version__}"
    theirs = Variant(name="transformers streamed", family="torch", version=versions)

    def torch_s(ids: Array, rows: Sequence[int], progress: Progress) -> dict[str, Kept]:
        return kept_by_transformers(source, ids, profile, progress, vocabulary, rows)

    return {_numpy(name): oracle(source, whole, one) for name, one in orders.items()} | {theirs: torch_s}


def slow(source: Source, whole: Question, full: FullSize, profile: Profile) -> dict[Variant, Pass]:
    """The oracle term by term, and the MLX decoders where the weights are materialised."""
    sequential = replace(PROFILES[profile], order="sequential")
    passes = {_numpy("oracle sequential"): oracle(source, whole, sequential)}
    if full.model_dir(source.id).is_dir():
        for name in ("mlx_impl", "mlx_lm") if source.id in SLICES else ("mlx_impl",):  # which holds models whole
            adapter = create(name)
            hello = adapter.hello()
            variant = Variant(name=name, family=hello.family, version=hello.version)
            passes[variant] = _adapter(adapter, source, whole, profile)
    return passes


def _vocabulary(whole: Question) -> Sequence[int]:
    """The entries of `logits` that the golden holds."""
    logits = next(tap for tap in whole.taps if tap.name == "logits")
    assert logits.picks is not None
    return logits.picks.indices(logits.axes)[-1]


def _numpy(name: str) -> Variant:
    return Variant(name=name, family="numpy", version=np.__version__)


def _adapter(adapter: Adapter, source: Source, whole: Question, profile: Profile) -> Pass:
    def run(ids: Array, rows: Sequence[int], progress: Progress) -> dict[str, Kept]:
        progress(0, 1, "one call")
        inputs = {"ids": ids, "positions": np.arange(ids.shape[1], dtype=np.int32)[None]}
        answer = adapter.run(replace(whole.request(profile), plan=Plan(steps=None), inputs=inputs))
        keeper = Keeper(config=source.config, length=ids.shape[1], rows=rows, vocabulary=_vocabulary(whole))
        for name in wanted(source.config):
            if name in answer:
                keeper(name, answer[name])
        return keeper.kept

    return run
