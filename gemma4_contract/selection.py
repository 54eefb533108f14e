"""Selects the entries of a case's tensors that count: the stored ones, in the rows that a mask keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gemma4_contract.graph import text_graph
from gemma4_contract.layout import row_axis
from gemma4_contract.models import TapSpec
from gemma4_contract.routing import Experts
from gemma4_contract.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """The stored part of an answer, and the root mean squares of the whole tensors: (answer's, golden's)."""

    taps: Mapping[str, Array]
    rms: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The stored part of each tap of a case; for a miniature this is the whole tap."""

    taps: Mapping[str, TapSpec]
    shapes: Mapping[str, Sequence[int]]
    """Shape of each tap as the port returns it."""
    experts: Mapping[str, Experts]
    """Routing tap -> the golden's choice at every row, also at those that are not stored."""

    @classmethod
    def of(cls, taps: Sequence[TapSpec], golden: Mapping[str, Array], choices: Mapping[str, Array]) -> Selection:
        """The selection of a golden; `choices` come from the case's file, which exists unless every row is stored."""
        shapes = {tap.name: tap.whole_shape(golden[tap.name].shape) for tap in taps}
        return cls(
            taps={tap.name: tap for tap in taps},
            shapes=shapes,
            experts={
                tap.name: Experts.numbered(choices[tap.name], choices[f"{tap.name}.margin"], shapes[tap.name][-1])
                if choices
                else Experts.of(golden[tap.parents[0]], golden[tap.name])
                for tap in taps
                if tap.cls == "routing"
            },
        )

    @property
    def is_whole(self) -> bool:
        """Whether everything is stored."""
        return not any(tap.picks for tap in self.taps.values())

    def stored_part(self, answer: Mapping[str, Array]) -> StoredPart:
        """The stored part of an answer; a tap whose shape is not the whole tap's stays unchanged."""
        taken, rms = dict(answer), {}
        for name, tap in self.taps.items():
            if tap.picks is None or name not in answer or list(answer[name].shape) != tap.picks.whole:
                continue
            taken[name] = answer[name][np.ix_(*tap.picks.indices(tap.axes))]
            if tap.picks.rms is not None:
                # After the layers a pass computes only the stored rows, and the golden's RMS is over these.
                rows = tap.numbers("L") if name in text_graph().after_layers else slice(None)
                rms[name] = _root_mean_square(answer[name][:, rows]), tap.picks.rms
        return StoredPart(taps=taken, rms=rms)

    def stored_rows(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """The stored ones of the rows [B, L] of each tap."""
        return {
            name: kept[:, self.taps[name].numbers("L")] if self.taps[name].picks else kept
            for name, kept in rows.items()
        }

    def valid_entries(
        self, golden: Mapping[str, Array], rows: Mapping[str, Array], real: Array | None
    ) -> dict[str, Array | None]:
        """The entries of each golden that count, boolean: `rows` [B, L] that are not pads; None if all count."""
        stored = self.stored_rows(rows)
        masks = {name: kept if real is None else kept & real.astype(bool) for name, kept in stored.items()}
        return {name: spread_mask(masks.get(name), tap.axes, golden[name].shape) for name, tap in self.taps.items()}


def spread_mask(mask: Array | None, axes: Sequence[str], shape: tuple[int, ...]) -> Array | None:
    """The mask [B, L] as booleans of this shape; None if there is no mask, or if B or the tokens have no axis."""
    axis = row_axis(axes)
    if mask is None or "B" not in axes or axis is None:
        return None
    index = [1] * len(shape)
    index[axes.index("B")], index[axis] = mask.shape
    spread: Array = np.broadcast_to(mask.astype(bool).reshape(index), shape)
    return spread


def _root_mean_square(value: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite result is reported like any other
        return float(np.sqrt(np.mean(value.astype(np.float64) ** 2)))
