"""The scaled token embedding."""

from __future__ import annotations

import math

from reference.oracle.arithmetic import Array, Functions


class Embedding(Functions):
    """The scaled embedding."""

    def embedding(self, ids: Array, table: Array) -> Array:
        """table[ids] * sqrt(width): ids [B, L], table [V, width] -> [B, L, width].

        The root is rounded to the storage dtype before it multiplies (sqrt(1536) = 39.19 -> 39.25 in bfloat16).
        """
        return table[ids] * self.ar.scalar(math.sqrt(table.shape[-1]), table)
