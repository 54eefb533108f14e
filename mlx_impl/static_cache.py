"""Key/value caches of fixed shape, so that a compiled step meets the same shapes at every token.

B batch, K key/value heads, S columns of the buffer, E head dim, L tokens of a pass.
"""

import mlx.core as mx

BLOCK = 256
"""Buffers of full layers grow by whole blocks: for a new shape the step is compiled anew."""


class StaticCache:
    """The keys and values of one layer, [B, K, S, E] each: a ring of `window` columns, or all that came."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.offset = 0
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    @property
    def arrays(self) -> list[mx.array]:
        """Everything retained, for `mx.eval` after a prefill."""
        return [x for x in (self.keys, self.values) if x is not None]

    def extend(self, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        """Add a pass's k, v [B, K, L, E]; what it attends to, [B, K, S, E] with S >= L, in order of arrival.

        A window keeps its newest columns, and its pass still sees the window - 1 before its first token.
        """
        length = k.shape[2]
        before = self.offset if self.window is None else min(self.offset, self.window - 1)
        old_k, old_v = self._newest(before)
        all_k = k if old_k is None else mx.concatenate([old_k, k], axis=2)
        all_v = v if old_v is None else mx.concatenate([old_v, v], axis=2)
        keys, values = self.with_room(length, like=k)
        kept = length if self.window is None else min(length, self.window)
        columns = self._columns(self.offset + length - kept, kept)
        keys[:, :, columns] = k[:, :, length - kept :]
        values[:, :, columns] = v[:, :, length - kept :]
        self.offset += length
        return all_k, all_v

    def with_room(self, length: int, like: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """The buffers, with a place for `length` columns more; `like` [B, K, L, E] gives shape and dtype at first."""
        wanted = self.window or -(-(self.offset + length) // BLOCK) * BLOCK
        if self.keys is None or self.values is None:
            assert like is not None
            batch, heads, _, width = like.shape
            self.keys = mx.zeros((batch, heads, wanted, width), dtype=like.dtype)
            self.values = mx.zeros((batch, heads, wanted, width), dtype=like.dtype)
        elif (missing := wanted - self.keys.shape[2]) > 0:
            padding = [(0, 0), (0, 0), (0, missing), (0, 0)]
            self.keys, self.values = mx.pad(self.keys, padding), mx.pad(self.values, padding)
        return self.keys, self.values

    def _newest(self, count: int) -> tuple[mx.array | None, mx.array | None]:
        """The last `count` columns in order of arrival."""
        if not count or self.keys is None or self.values is None:
            return None, None
        columns = self._columns(self.offset - count, count)
        return self.keys[:, :, columns], self.values[:, :, columns]

    def _columns(self, first: int, count: int) -> slice | mx.array:
        """Where tokens first .. first + count - 1 lie in the buffer."""
        if self.window is None:
            return slice(first, first + count)
        return mx.arange(first, first + count) % self.window
