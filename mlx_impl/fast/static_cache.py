"""Key/value caches of fixed shape, so that a compiled step meets the same shapes at every token.

K key/value heads, S columns of the buffer, E head dim, L tokens of a pass. Both lie in one array, keys first, so that a
step writes them at once. One sequence, and no pads.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_impl.model.kv_cache import KV

BLOCK = 256
"""Buffers of full layers grow by whole blocks: for a new shape the step is compiled anew."""


class StaticCache:
    """The keys and values of one layer, [1, 2K, S, E]: a ring of `window` columns, or all that came."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.offset = 0
        self.buffer: mx.array | None = None

    def fresh(self) -> StaticCache:
        """An empty one for the same layer."""
        return StaticCache(self.window)

    @property
    def arrays(self) -> list[mx.array]:
        """Everything retained, for `mx.eval` after a prefill."""
        return [] if self.buffer is None else [self.buffer]

    @property
    def kept(self) -> KV | None:
        """What the next token sees of it: the last window - 1 columns, or all; None before the first pass."""
        found = self._newest(self._seen_before)
        if found is None:
            return None
        heads, columns = found.shape[1] // 2, found.shape[2]
        positions = mx.arange(self.offset - columns, self.offset)[None]
        return KV(keys=found[:, :heads], values=found[:, heads:], positions=positions, valid=None)

    def restore(self, kept: KV, offset: int) -> None:
        """Hold these columns, the newest of `offset` that were seen: of a cache that was saved, or is gone back in."""
        columns = kept.keys.shape[2]
        self.buffer, self.offset = None, offset - columns
        self._write(mx.concatenate([kept.keys, kept.values], axis=1))

    def extend(self, kv: mx.array) -> mx.array:
        """Add keys and values [1, 2K, L, E] of a pass; what it attends to, [1, 2K, S, E], S >= L, in order of arrival.

        A window keeps its newest columns, and its pass still sees the window - 1 before its first token.
        """
        old = self._newest(self._seen_before)
        self._write(kv)
        return kv if old is None else mx.concatenate([old, kv], axis=2)

    def with_room(self, length: int, like: mx.array | None = None) -> mx.array:
        """The buffer, with a place for `length` columns more; `like` [1, 2K, L, E] gives shape and dtype at first."""
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
        """Where tokens first .. first + count - 1 lie in the buffer."""
        if self.window is None:
            return slice(first, first + count)
        return mx.arange(first, first + count) % self.window
