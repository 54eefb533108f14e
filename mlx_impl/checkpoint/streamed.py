"""Layers whose weights are in memory while they run and no longer, for models that memory does not hold."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from mlx_impl.model.config import Config
from mlx_impl.model.kv_cache import KV
from mlx_impl.model.layer import DecoderLayer
from mlx_impl.model.taps import Tap


class StreamedLayer(DecoderLayer):
    """A `DecoderLayer` that is called as a whole: between calls its parameters have shapes and no values."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self._read: Callable[[], Mapping[str, mx.array]] = dict

    def read_by(self, read: Callable[[], Mapping[str, mx.array]]) -> None:
        """Have every call take its weights from `read`, by their names within the layer, not evaluated yet."""
        self._read = read

    def __call__(self, *args: Any, tap: Tap | None = None, **named: Any) -> tuple[mx.array, KV]:
        """`DecoderLayer.__call__`, whose results, taps among them, are evaluated: the same to the bit."""
        unread, seen = self.tensors(), []

        def told(name: str, value: mx.array) -> None:
            seen.append(value)
            if tap is not None:
                tap(name, value)

        self.load_weights(list(self._read().items()))
        try:
            h, kv = super().__call__(*args, tap=None if tap is None else told, **named)
            mx.eval(h, kv.keys, kv.values, seen)
        finally:
            self.load_weights(list(unread.items()))
        return h, kv
