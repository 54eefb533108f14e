"""Describes an error: what a person would notice in it before they suspect a cause.

Shape letters: B batch, L query length, H heads, E head dim; the others are those of the taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from conformance.diagnosis.evidence import Evidence, rms
from conformance.judging.compare import TapVerdict
from gemma4_contract import TapSpec
from gemma4_contract.graph import text_graph
from gemma4_contract.layout import row_axis
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.mutants.mutant import LOW_PRECISION

_SAME_FACTOR = 2e-3
"""How near a fitted factor must be to a known constant to be reported as that constant."""
_NEARLY_ALL = 0.1
"""Largest part of the error that may remain after a factor or an order explains it."""


def in_words(evidence: Evidence, specs: Sequence[TapSpec], config: TextConfig | None, profile: str) -> list[str]:
    """Sentences on the first divergence; none if the tensor is missing or has a wrong shape."""
    first = evidence.verdict.first_divergence
    spec = next((spec for spec in specs if first is not None and spec.name == first.name), None)
    answer = (evidence.verdict.answer or {}).get(spec.name) if spec else None
    if first is None or spec is None or answer is None or answer.shape != evidence.golden[spec.name].shape:
        return []
    golden = evidence.golden[spec.name].astype(np.float64)
    valid = np.ones(golden.shape, bool) if first.valid is None else first.valid
    got = np.where(valid, answer.astype(np.float64), golden)
    found = list(_where_in_the_model(first, evidence.verdict.taps, config))
    if first.error is not None and not first.error.worst:
        return [*found, "only rows that are not stored are wrong"]
    if not np.isfinite(got).all():
        return [*found, f"{int((~np.isfinite(got)).sum())} values are NaN or infinite"]
    found += _factor(got, golden, config)
    found += _order(got, golden, spec.axes)
    found += _rows(got, golden, spec, first, config)
    found += _parts(got, golden, spec, first, config)
    return [*found, *_grid(answer, golden, profile, _sources(evidence, spec))]


def _where_in_the_model(first: TapVerdict, taps: Sequence[TapVerdict], config: TextConfig | None) -> Iterator[str]:
    """The kind of the layer, if layers of another kind come before it and pass."""
    place = text_graph().place_of(first.name)
    if config is None or place is None or place.layer is None:
        return
    layer, agreeing = place.layer, {tap.name for tap in taps if tap.status == "pass"}
    before = [i for i in range(layer) if place.node.named(i) in agreeing]
    if before and all(config.is_sliding(i) for i in before) and not config.is_sliding(layer):
        yield f"layer {layer} is the first full-attention layer; the sliding layers before it agree"
    if before and config.is_kv_shared(layer) and not config.is_kv_shared(layer - 1):
        yield f"layer {layer} is the first KV-shared layer; the layers before it agree"


def _factor(got: Array, golden: Array, config: TextConfig | None) -> Iterator[str]:
    """The constant factor that turns the golden into the answer, by name if it is a known constant."""
    square = float(np.sum(golden * golden))
    factor = float(np.sum(got * golden)) / square if square else 0.0
    error = rms(got - golden)
    if not factor or rms(got - factor * golden) > _NEARLY_ALL * error:
        return
    named = [name for name, value in _constants(config).items() if abs(factor / value - 1) < _SAME_FACTOR]
    yield f"the answer is {factor:.6g} times the golden" + (f" ({' or '.join(named)})" if named else "")


def _constants(config: TextConfig | None) -> Mapping[str, float]:
    known = {"-1": -1.0, "2": 2.0, "1/2": 0.5, "sqrt(2)": math.sqrt(2), "1/sqrt(2)": math.sqrt(0.5)}
    if config is None:
        return known
    sizes = {
        "D": config.hidden_size,
        "P": config.hidden_size_per_layer_input,
        "N*P": config.hidden_size_per_layer_input * config.num_hidden_layers,
        "head_dim": config.head_dim,
        "global_head_dim": config.global_head_dim,
    }
    for name, size in sizes.items():
        if size:
            known |= {f"sqrt({name})": math.sqrt(size), f"1/sqrt({name})": 1 / math.sqrt(size), name: float(size)}
    if config.final_logit_softcapping:
        known |= {"the soft cap": config.final_logit_softcapping, "1/soft cap": 1 / config.final_logit_softcapping}
    return known


def _order(got: Array, golden: Array, axes: Sequence[str]) -> Iterator[str]:
    """Whether the answer holds the golden's values in another order along an axis."""
    for axis, letter in enumerate(axes):
        if golden.shape[axis] < 2:
            continue
        apart = rms(np.sort(got, axis) - np.sort(golden, axis))
        if apart < _NEARLY_ALL**2 * rms(got - golden):
            yield f"the values are right, in another order along {letter}"


def _rows(got: Array, golden: Array, spec: TapSpec, first: TapVerdict, config: TextConfig | None) -> Iterator[str]:
    """At which positions the error lies."""
    axis = row_axis(spec.axes)
    if axis is None or golden.shape[axis] < 3:
        return
    numbers = np.array(spec.numbers(spec.axes[axis]))
    per_row = _per(got - golden, axis)
    wrong = per_row > _limit(first, golden)
    count = len(wrong)
    start = int(np.argmax(wrong))
    if not wrong.any():
        return
    if start and wrong[start:].all():
        before, row = numbers[start - 1 : start + 1]
        window = config is not None and row == config.sliding_window
        if row - before > 1:  # few rows are stored at full size
            yield f"it begins between rows {before + 1} and {row}"
        else:
            yield f"it begins at row {row}" + (", where the window is full" if window else "")
    elif not wrong.all():
        rows = ", ".join(str(i) for i in numbers[wrong][:8])
        yield f"{int(wrong.sum())} of {count} rows are wrong: {rows}" + (" ..." if wrong.sum() > 8 else "")
    if wrong.sum() > 4 and _rank_correlation(per_row[wrong]) > 0.8:
        yield "it grows with the position"


def _parts(got: Array, golden: Array, spec: TapSpec, first: TapVerdict, config: TextConfig | None) -> Iterator[str]:
    """Which heads and which channels are wrong, if others are right."""
    axes, limit = spec.axes, _limit(first, golden)
    for letter, what in (("H", "head"), ("K", "key/value head")):
        if letter in axes and golden.shape[axes.index(letter)] > 1:
            wrong = _per(got - golden, axes.index(letter)) > limit
            if wrong.any() and not wrong.all():
                numbers = ", ".join(str(i) for i in np.array(spec.numbers(letter))[wrong])
                yield f"only {what}s {numbers} of {len(wrong)} are wrong"
    place = text_graph().place_of(first.name)
    if config is not None and place is not None and place.node.function == "rope" and place.layer is not None:
        wrong, layer = _per(got - golden, axes.index("E")) > limit, place.layer
        half = config.head_dim_of(layer) // 2
        turning = int(config.rope_of(layer).partial_rotary_factor * half)
        rotated = np.array(spec.numbers("E")) % half < turning
        if config.rope_of(layer).rope_type == "proportional" and wrong.any() and not wrong[~rotated].any():
            yield f"only rotated channels are wrong (j and j + {half} for j < {turning})"


def _sources(evidence: Evidence, spec: TapSpec) -> list[Array] | None:
    """What a tap is computed from, of the answer or of the case's inputs; None for rows of a bfloat16 table."""
    node = text_graph().node_of(spec.name)
    if node is not None and node.function in ("embedding", "token_rows"):
        return None
    answer = evidence.verdict.answer or {}
    parents = [answer[name] for name in spec.parents if name in answer]
    return parents or [value for value in evidence.inputs.values() if value.dtype.kind == "f"]


def _grid(answer: Array, golden: Array, profile: str, sources: list[Array] | None) -> Iterator[str]:
    """Whether an answer that claims float32 holds bfloat16 values although neither the golden nor its sources do."""
    if profile in LOW_PRECISION or answer.dtype not in (np.float32, np.float64) or not answer.any():
        return
    if sources is None or (sources and all(_on_grid(source) for source in sources)):
        return
    if _on_grid(answer) and not _on_grid(golden):
        yield "every value sits on the bfloat16 grid: something is computed or stored in 16 bits"


def _on_grid(x: Array) -> bool:
    return np.array_equal(x.astype(ml_dtypes.bfloat16).astype(x.dtype), x)


def _limit(first: TapVerdict, golden: Array) -> float:
    """The error from which a row, head or channel counts as wrong: the tolerance of the whole tensor."""
    return (first.tolerance.rms if first.tolerance else 0.0) * rms(golden)


def _per(error: Array, axis: int) -> Any:
    """Root mean square over all axes but one."""
    return np.sqrt(np.mean(np.moveaxis(error, axis, 0).reshape(error.shape[axis], -1) ** 2, axis=-1))


def _rank_correlation(values: Array) -> float:
    ranks = np.argsort(np.argsort(values)).astype(np.float64)
    return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])
