"""A recorder that keeps the oracle's own taps and goes on with those of a port.

B batch, L length, X experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gemma4_contract.graph import text_graph
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array


@dataclass(frozen=True, slots=True)
class Substitutes:
    """Called with each tap of a pass: keeps it, and returns the port's."""

    given: Mapping[str, Array]
    """The port's taps, in float64 and in the shape of the oracle's."""
    experts: Mapping[str, Array]
    """Tap of router logits -> the experts that the pass goes on with, boolean [B, L, X]."""
    valid: Array | None
    """[B, L], 0 at pads: there the pass goes on with its own values."""
    taps: dict[str, Array] = field(default_factory=dict)

    def __call__(self, name: str, value: Array) -> Array:
        """Keep `value` as the tap `name`; what the pass is to go on with."""
        self.taps[name] = value
        given = self.given.get(name, value)
        node = text_graph().node_of(name)
        real = None if node is None else spread_mask(self.valid, node.axes.split(), value.shape)
        if real is not None:
            given = np.where(real, given, value)
        return np.where(self.experts[name], given, -np.inf) if name in self.experts else given
