"""Layers whose weights are in memory only while they run, for models that are larger than memory."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from mlx_impl.model.config import Config
from mlx_impl.model.kv_cache import KV
from mlx_impl.model.layer import DecoderLayer
from mlx_impl.model.taps import Tap, unwatched


class StreamedLayer(DecoderLayer):
    """A `DecoderLayer` that reads its weights at every call: between calls its parameters have shapes and no values."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self._read: Callable[[], Mapping[str, mx.array]] = dict

    def read_by(self, read: Callable[[], Mapping[str, mx.array]]) -> None:
        """Set what gives the weights at every call, by their names within the layer, not evaluated yet."""
        self._read = read

    def __call__(self, *args: Any, tap: Tap = unwatched, **named: Any) -> tuple[mx.array, KV]:
        """`DecoderLayer.__call__`, bit by bit, with the results and taps evaluated before the weights are dropped."""
        unread, shown = self.tensors(), []

        def keep(name: str, value: mx.array) -> mx.array:
            shown.append(value)
            return tap(name, value)

        self.load_weights(list(self._read().items()))
        try:
            h, kv = super().__call__(*args, tap=unwatched if tap is unwatched else keep, **named)
            mx.eval(h, kv.keys, kv.values, shown)
        finally:
            self.load_weights(list(unread.items()))
        return h, kv
