"""Keys and values, and the cache that keeps all of them; the mask applies the window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference.oracle.arithmetic import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValues:
    """Keys and values [B, K, S, E] with the positions and validity [B, S] of their tokens."""

    keys: Array
    values: Array
    positions: Array
    valid: Array

    def followed_by(self, new: KeyValues) -> KeyValues:
        """These and `new` along S."""
        return KeyValues(
            keys=np.concatenate([self.keys, new.keys], axis=2),
            values=np.concatenate([self.values, new.values], axis=2),
            positions=np.concatenate([self.positions, new.positions], axis=1),
            valid=np.concatenate([self.valid, new.valid], axis=1),
        )


class KVCache:
    """The keys and values of each own-KV layer so far."""

    def __init__(self) -> None:
        self.layers: dict[int, KeyValues] = {}

    def update(self, layer: int, new: KeyValues) -> KeyValues:
        """Append a layer's new keys and values; returns all that its queries may see."""
        if layer in self.layers:
            new = self.layers[layer].followed_by(new)
        self.layers[layer] = new
        return new
