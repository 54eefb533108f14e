"""Records the stored part of the taps of a full-size pass: chosen rows, and on other axes evenly spaced entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gemma4_contract.graph import text_graph
from gemma4_contract.routing import routing_margins
from gemma4_contract.tensors import Array
from reference.config import TextConfig
from reference.taps import Tap, model_taps

TOP = 64
"""The number of largest logits of every stored row that are stored too."""


def stored_counts(config: TextConfig) -> dict[str, Mapping[str, int]]:
    """The stored taps, in execution order: name -> axis -> number of stored entries; all are stored on other axes."""
    nodes = ((tap.name, text_graph().node_of(tap.name)) for tap in model_taps(config))
    return {name: node.stored for name, node in nodes if node is not None and node.stored is not None}


def evenly_spaced(size: int, count: int) -> list[int]:
    """`count` indices at regular distances, or all indices if `size` is not larger."""
    step = max(1, size // count)
    return list(range(step // 2, size, step))[:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTap:
    """The stored part of one tap: shape and RMS of the whole, the indices on each axis, and the entries there."""

    whole: tuple[int, ...]
    indices: Mapping[str, Sequence[int]]
    values: Array
    rms: float
    chosen: Array | None = None
    """The chosen experts of every row of a routing tap, U8 [B, L, k] in ascending order."""
    margins: Array | None = None
    """The margins of their logits, F32 [B, L]."""


@dataclass(slots=True, kw_only=True)
class StoredTapRecorder:
    """A recorder of a pass over `length` tokens; stores `rows`. Final norm and logits are computed only for these."""

    config: TextConfig
    length: int
    rows: Sequence[int]
    vocabulary: Sequence[int] | None = None
    """The entries of `logits` to store; if None, evenly spaced ones and the largest."""
    taps: dict[str, StoredTap] = field(default_factory=dict)
    _counts: Mapping[str, Mapping[str, int]] = field(init=False)
    _specs: Mapping[str, Tap] = field(init=False)
    _logits: set[str] = field(init=False)
    """The taps that experts are chosen by, the router's logits."""
    _scores: Array = field(init=False)
    """The latest tensor of such a tap."""

    def __post_init__(self) -> None:
        self._counts = stored_counts(self.config)
        self._specs = {tap.name: tap for tap in model_taps(self.config)}
        self._logits = {parent for tap in self._specs.values() if tap.cls == "routing" for parent in tap.parents}

    def __call__(self, name: str, value: Array) -> Array:
        if (counts := self._counts.get(name)) is not None:
            self._keep(name, value, counts)
        return value

    def _keep(self, name: str, value: Array, counts: Mapping[str, int]) -> None:
        axes = self._specs[name].axes
        if name in self._logits:
            self._scores = value
        indices: dict[str, Sequence[int]] = {}
        for axis, size in zip(axes, value.shape, strict=True):
            if axis == "L":
                indices[axis] = list(self.rows) if size == self.length else range(size)
            elif axis in counts:
                indices[axis] = evenly_spaced(size, counts[axis])
        if name == "logits" and self.vocabulary is not None:
            indices["V"] = self.vocabulary
        elif name == "logits":
            top = np.argpartition(value[0], -TOP, axis=-1)[:, -TOP:]
            indices["V"] = sorted({*indices["V"], *(int(i) for i in top.reshape(-1))})
        every = [indices.get(axis, range(size)) for axis, size in zip(axes, value.shape, strict=True)]
        wide = value.astype(np.float64)
        self.taps[name] = StoredTap(
            whole=tuple(self.length if axis == "L" else size for axis, size in zip(axes, value.shape, strict=True)),
            indices={axis: list(self.rows) if axis == "L" else list(taken) for axis, taken in indices.items()},
            values=value[np.ix_(*(np.asarray(taken) for taken in every))],
            rms=float(np.sqrt(np.mean(wide * wide))),
            **self._choice(value) if self._specs[name].cls == "routing" else {},
        )

    def _choice(self, combine: Array) -> dict[str, Array]:
        assert self.config.top_k_experts is not None
        order = np.argsort(combine == 0, axis=-1, kind="stable")  # the chosen ones come first
        chosen = order[..., : self.config.top_k_experts].astype(np.uint8)
        return {"chosen": chosen, "margins": routing_margins(self._scores, combine).astype(np.float32)}
