"""Matrices that are never whole in memory."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import numpy.typing as npt

from gemma4_contract.tensors import Array
from reference import weights

BLOCK_BYTES = 64 << 20
"""Size of a block of rows in float64."""
_THREADS = os.cpu_count() or 1
_POOL = ThreadPoolExecutor(_THREADS)


class Matrix(ABC):
    """A table [rows, width] or a stack of matrices [X, rows, width] that replaces an array of `dtype`."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        self.shape = shape
        self.dtype = dtype

    @abstractmethod
    def rows(self, block: slice) -> Array:
        """[rows of the block, width], in `dtype`; the rows of a stack are counted through."""

    def __getitem__(self, index: int | Array) -> Array:
        """The entry of the first axis with this index, or those with these indices, as an array."""
        if isinstance(index, np.ndarray):
            found = {int(i): self[int(i)] for i in np.unique(index)}
            return np.stack([found[int(i)] for i in index.reshape(-1)]).reshape(*index.shape, *self.shape[1:])
        rows = math.prod(self.shape[1:-1])
        return self.rows(slice(index * rows, (index + 1) * rows)).reshape(self.shape[1:])

    def blocks(self) -> list[slice]:
        """The blocks of rows to make at a time."""
        rows, total = max(1, BLOCK_BYTES // (8 * self.shape[-1])), math.prod(self.shape[:-1])
        return [slice(first, min(first + rows, total)) for first in range(0, total, rows)]


Q = Callable[[str, int, int], npt.NDArray[np.int8]]
"""`weights.q`, or a function that replaces it."""


class Remembered:
    """`weights.q` with a cache of its latest results, up to `size` bytes, for passes that take turns."""

    def __init__(self, size: int) -> None:
        self._size, self._held = size, 0
        self._kept: OrderedDict[tuple[str, int, int], npt.NDArray[np.int8]] = OrderedDict()
        self._lock = Lock()

    def __call__(self, name: str, start: int, stop: int) -> npt.NDArray[np.int8]:
        key = name, start, stop
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        made = weights.q(name, start, stop)
        with self._lock:
            self._kept[key] = made
            self._held += made.nbytes
            while self._held > self._size:
                self._held -= self._kept.popitem(last=False)[1].nbytes
        return made


class RuleMatrix(Matrix):
    """A matrix whose weights are a formula: `weights.matrix` of this name."""

    def __init__(
        self, name: str, shape: tuple[int, ...], fan_in: int, dtype: np.dtype[np.generic], q: Q = weights.q
    ) -> None:
        super().__init__(shape, dtype)
        self.name = name
        self._q = q
        self.exponent = weights.matrix_exponent(fan_in)
        # By the byte of q: 0 to 127, then -128 to -1.
        numbers = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float64)
        self._values = (numbers * 2.0**-self.exponent).astype(dtype)

    def rows(self, block: slice) -> Array:
        """q * 2^-k, which every dtype of the profiles holds exactly."""
        width = self.shape[-1]
        return self._elements(block.start * width, block.stop * width).reshape(-1, width)

    def _elements(self, start: int, stop: int) -> Array:
        made: Array = np.empty(stop - start, self.dtype)

        def fill(first: int, last: int) -> None:
            numbers = self._q(self.name, first, last).view(np.uint8)
            np.take(self._values, numbers, out=made[first - start : last - start], mode="clip")  # quicker than checks

        parts = _THREADS if stop - start > 1 << 16 else 1
        edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
        list(_POOL.map(fill, edges[:-1], edges[1:]))
        return made
