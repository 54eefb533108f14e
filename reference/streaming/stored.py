"""Matrices of a checkpoint, read block by block: plain, quantised, and experts whose gates and ups are separate.

R rows of a matrix, I its width, W 32-bit words that a quantised row takes, G groups of a row.
"""

from __future__ import annotations

import numpy as np

from gemma4_contract.tensors import Array, Stored
from reference.streaming.matrix import Matrix


class StoredMatrix(Matrix):
    """A matrix that the file holds unquantised."""

    def __init__(self, stored: Stored, dtype: np.dtype[np.generic]) -> None:
        super().__init__(stored.shape, dtype)
        self._stored = stored

    def rows(self, block: slice) -> Array:
        return _rows(self._stored, block).astype(self.dtype)


class QuantizedMatrix(Matrix):
    """w = scale * code + bias, as MLX quantises: codes [R, W] of `bits` bits; scales and biases [R, G] of groups.

    The shapes give the width of a code; a row is a stream of bits, the lowest first. w is computed in float64
    and rounded once. ValueError if the shapes fit no such matrix.
    """

    def __init__(self, parts: tuple[Stored, Stored, Stored], width: int, dtype: np.dtype[np.generic]) -> None:
        self._codes, self._scales, self._biases = parts
        super().__init__((*self._codes.shape[:-1], width), dtype)
        words, groups = self._codes.shape[-1], self._scales.shape[-1]
        self._bits, left = divmod(32 * words, width)
        alike = self._scales.shape == self._biases.shape and self._scales.shape[:-1] == self._codes.shape[:-1]
        if left or not 1 <= self._bits <= 8 or not groups or width % groups or not alike:
            shapes = ", ".join(str(part.shape) for part in parts)
            raise ValueError(f"{self._codes.name}: got codes, scales and biases {shapes}, expected width {width}")
        first = np.arange(width) * self._bits
        self._byte, self._shift = first // 8, (first % 8).astype(np.uint16)

    def rows(self, block: slice) -> Array:
        stream = _rows(self._codes, block).view(np.uint8)
        pairs = np.pad(stream, ((0, 0), (0, 1))).astype(np.uint16)  # a code may end in the next byte
        pairs[:, :-1] |= pairs[:, 1:] << np.uint16(8)
        codes = (pairs[:, self._byte] >> self._shift) & np.uint16((1 << self._bits) - 1)
        scales, biases = (_rows(part, block).astype(np.float64) for part in (self._scales, self._biases))
        grouped = codes.reshape(*scales.shape, -1).astype(np.float64)  # [R, G, I / G]
        grouped *= scales[..., None]
        grouped += biases[..., None]
        made: Array = grouped.reshape(codes.shape).astype(self.dtype)
        return made


class FusedExperts(Matrix):
    """Two stacks [X, F, D] as one [X, 2F, D], each expert's gate before its up."""

    def __init__(self, gate: Matrix, up: Matrix) -> None:
        experts, rows, width = gate.shape
        super().__init__((experts, 2 * rows, width), gate.dtype)
        self._parts = gate, up

    def rows(self, block: slice) -> Array:
        height = self.shape[1]
        first, last = block.start // height, -(-block.stop // height)
        fused = np.concatenate([part[expert] for expert in range(first, last) for part in self._parts])
        return fused[block.start - first * height : block.stop - first * height]


def _rows(stored: Stored, block: slice) -> Array:
    width = stored.shape[-1]
    return stored.read(block.start * width, block.stop * width).reshape(-1, width)
