"""Key/value caches of fixed shape, so that a compiled step meets the same shapes at every token.

K key/value heads, S columns of the buffer, E head dim, L tokens of a pass. Keys and values are in one array, the keys
first, so that a step writes both at once. A cache holds one sequence without pads.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_impl.model.kv_cache import KV

BLOCK = 256
"""Buffers of full layers grow by whole blocks, because the step is compiled again for every new shape."""


class StaticCache:
    """The keys and values of one layer, [1, 2K, S, E]: a ring of `window` columns, or every column so far."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.offset = 0
        self.buffer: mx.array | None = None

    def fresh(self) -> StaticCache:
        """An empty cache for the same layer."""
        return StaticCache(self.window)

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays that are kept, for `mx.eval` after a prefill."""
        return [] if self.buffer is None else [self.buffer]

    @property
    def kept(self) -> KV | None:
        """The columns that the next token sees: the last window - 1, or all; None before the first pass."""
        found = self._newest(self._seen_before)
        if found is None:
            return None
        heads, columns = found.shape[1] // 2, found.shape[2]
        positions = mx.arange(self.offset - columns, self.offset)[None]
        return KV(keys=found[:, :heads], values=found[:, heads:], positions=positions, valid=None)

    def restore(self, kept: KV, offset: int) -> None:
        """Hold these columns, the newest of `offset` that were seen: to load a saved cache, or to go back in one."""
        columns = kept.keys.shape[2]
        self.buffer, self.offset = None, offset - columns
        self._write(mx.concatenate([kept.keys, kept.values], axis=1))

    def extend(self, kv: mx.array) -> mx.array:
        """Add the keys and values [1, 2K, L, E] of a pass; return what it attends to, [1, 2K, S, E], oldest first.

        A ring keeps its newest columns, but the pass still sees the window - 1 columns before its first token.
        """
        old = self._newest(self._seen_before)
        self._write(kv)
        return kv if old is None else mx.concatenate([old, kv], axis=2)

    def with_room(self, length: int, like: mx.array | None = None) -> mx.array:
        """The buffer with room for `length` more columns; `like` [1, 2K, L, E] gives a new one its shape and dtype."""
        wanted = self.window or -(-(self.offset + length) // BLOCK) * BLOCK
        if self.buffer is None:
            assert like is not None
            self.buffer = mx.zeros((*like.shape[:2], wanted, like.shape[3]), dtype=like.dtype)
        elif (missing := wanted - self.buffer.shape[2]) > 0:
            self.buffer = mx.pad(self.buffer, [(0, 0), (0, 0), (0, missing), (0, 0)])
        return self.buffer

    @property
    def _seen_before(self) -> int:
        """How many columns the next token sees besides itself."""
        return self.offset if self.window is None else min(self.offset, self.window - 1)

    def _write(self, kv: mx.array) -> None:
        length = kv.shape[2]
        buffer = self.with_room(length, like=kv)
        count = length if self.window is None else min(length, self.window)
        buffer[:, :, self._columns(self.offset + length - count, count)] = kv[:, :, length - count :]
        self.offset += length

    def _newest(self, count: int) -> mx.array | None:
        """The last `count` columns in order of arrival; None before the first pass."""
        if self.buffer is None:
            return None
        return self.buffer[:, :, self._columns(self.offset - count, count)]

    def _columns(self, first: int, count: int) -> slice | mx.array:
        """The columns of the buffer that belong to the tokens first .. first + count - 1."""
        if self.window is None:
            return slice(first, first + count)
        return mx.arange(first, first + count) % self.window
