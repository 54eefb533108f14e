"""Key/value caches: what one layer remembers of earlier passes.

Keys and values are kept with their positions and validity, so a mask never has to guess what a column holds.
Columns stay in order of arrival, and only left padding is supported, so the newest token is always the last column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_impl.model.config import Config


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KV:
    """What a layer attends to in one pass: keys, values [B, K, S, E]; positions [B, S]; valid [B, S] or None = all."""

    keys: mx.array
    values: mx.array
    positions: mx.array
    valid: mx.array | None


def join(old: KV, new: KV) -> KV:
    """`old` followed by `new` along S; validity stays None as long as no pass had pads."""
    valid = None
    if old.valid is not None or new.valid is not None:
        valid = mx.concatenate([_mask(old), _mask(new)], axis=-1)
    return KV(
        keys=mx.concatenate([old.keys, new.keys], axis=2),
        values=mx.concatenate([old.values, new.values], axis=2),
        positions=mx.concatenate([old.positions, new.positions], axis=-1),
        valid=valid,
    )


def newest(kv: KV, count: int) -> KV:
    """The last `count` columns, or all of them when there are fewer."""
    start = max(kv.positions.shape[-1] - count, 0)  # never [-count:], which for 0 would keep everything
    return KV(
        keys=kv.keys[:, :, start:],
        values=kv.values[:, :, start:],
        positions=kv.positions[:, start:],
        valid=None if kv.valid is None else kv.valid[:, start:],
    )


def _mask(kv: KV) -> mx.array:
    return mx.ones(kv.positions.shape, dtype=mx.bool_) if kv.valid is None else kv.valid


class FullKVCache:
    """Remembers every column: for full-attention layers."""

    window: int | None = None

    def __init__(self) -> None:
        self._kept: KV | None = None
        self._offset = 0

    def fresh(self) -> FullKVCache:
        """An empty cache for the same layer."""
        return make_cache(self.window)

    @property
    def offset(self) -> int:
        """How many columns were seen so far, including pads: a plain int, which no later pass can change."""
        return self._offset

    @property
    def padded(self) -> bool:
        """Whether any pass came with a validity mask."""
        return self._kept is not None and self._kept.valid is not None

    @property
    def kept(self) -> KV | None:
        """The columns that are kept; None before the first pass."""
        return self._kept

    def restore(self, kept: KV, offset: int) -> None:
        """Hold these columns, the newest of `offset` that were seen: to load a saved cache, or to go back in one."""
        self._kept, self._offset = kept, offset

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays that are kept, for `mx.eval` after a prefill."""
        kept = self._kept
        if kept is None:
            return []
        padding = [] if kept.valid is None else [kept.valid]
        return [kept.keys, kept.values, kept.positions, *padding]

    def update(self, k: mx.array, v: mx.array, positions: mx.array, valid: mx.array | None) -> KV:
        """Add the keys and values of this pass and return all that it attends to: the kept ones, then the new ones.

        k, v [B, K, L, E] any float dtype, positions [B, L] int32, valid [B, L] bool or None -> KV over S >= L columns.
        """
        new = KV(keys=k, values=v, positions=positions, valid=valid)
        attended = new if self._kept is None else join(self._kept, new)
        self._kept = self.retain(attended)
        self._offset += positions.shape[-1]
        return attended

    def retain(self, attended: KV) -> KV:
        """What to keep of the columns that a pass attended to."""
        return attended


class RotatingKVCache(FullKVCache):
    """Remembers the last window - 1 columns: with its own column, all that the next query of a sliding layer may see.

    A pass of many tokens still attends to kept and new columns: its early queries need the old columns, and a
    KV-shared layer must see exactly what its donor saw. Source: `sliding_window`.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def retain(self, attended: KV) -> KV:
        """The newest window - 1 columns."""
        assert self.window is not None
        return newest(attended, self.window - 1)


def make_cache(window: int | None) -> FullKVCache:
    """An empty cache for a layer with this window; the window of a full layer is None."""
    return FullKVCache() if window is None else RotatingKVCache(window)


def make_caches(config: Config) -> list[FullKVCache]:
    """One cache for each own-KV layer, in order; KV-shared layers read their donor's KV and have none."""
    return [make_cache(config.window_of(i)) for i in config.own_kv_layers]


def common_offset(caches: Sequence[FullKVCache] | None) -> int:
    """The number of columns seen before this pass; 0 without caches."""
    return caches[0].offset if caches else 0
