"""The decoders that are timed, with one interface; each is used as its own generation uses it.

L tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models import gemma4_text  # noqa: F401  # which loading would import, within what is timed
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

import mlx_impl
from mlx_impl.fast.decoder import FusedDecoder


class Contender(ABC):
    """One decoder with the weights of a checkpoint. `impl` is its name to the judge."""

    impl: str

    @abstractmethod
    def __init__(self, folder: Path, dtype: str) -> None:
        """Load the checkpoint, with floats in `dtype`."""

    def prefill(self, ids: mx.array) -> tuple[Any, mx.array]:
        """ids [1, L] through fresh caches -> these, and the next token [1], evaluated."""
        caches = self.make_caches()
        token = self._chosen(self.last_logits(ids, caches))
        mx.eval(token)
        return caches, token

    def step(self, token: mx.array, caches: Any) -> mx.array:
        """Decode one token [1]; returns the next token [1], not evaluated."""
        return self._chosen(self.last_logits(token[None], caches))

    @abstractmethod
    def make_caches(self) -> Any:
        """Fresh caches."""

    @abstractmethod
    def last_logits(self, ids: mx.array, caches: Any) -> mx.array:
        """ids [1, L] -> the logits [1, 1, V] after the last id."""

    @abstractmethod
    def logits(self, ids: mx.array) -> mx.array:
        """ids [1, L] -> all logits [1, L, V] in float32."""

    @staticmethod
    @abstractmethod
    def cache_bytes(caches: Any) -> int:
        """Bytes of keys and values."""

    @staticmethod
    def _chosen(logits: mx.array) -> mx.array:
        return mx.argmax(logits[:, -1], axis=-1)


class MlxImpl(Contender):
    """mlx_impl's fast path."""

    impl = "mlx_impl_fused"

    def __init__(self, folder: Path, dtype: str, ple: Any = "resident") -> None:
        self._decoder = FusedDecoder(mlx_impl.load(folder, dtype, ple))

    def make_caches(self) -> Any:
        return self._decoder.make_caches()

    def last_logits(self, ids: mx.array, caches: Any) -> mx.array:
        return self._decoder(ids, caches, last_only=True)

    def logits(self, ids: mx.array) -> mx.array:
        return self._decoder(ids).astype(mx.float32)

    @staticmethod
    def cache_bytes(caches: Any) -> int:
        return sum(x.nbytes for cache in caches for x in cache.arrays)


class MlxImplMapped(MlxImpl):
    """mlx_impl's fast path with the table of per-layer embeddings mapped from its file."""

    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(folder, dtype, "mapped")


class MlxLm(Contender):
    """The released mlx-lm, loaded and prefilled as its own generation does: the last token apart from the others."""

    impl = "mlx_lm"

    def __init__(self, folder: Path, dtype: str) -> None:
        self._model: Any = load_model(folder)[0]
        self._model.set_dtype(getattr(mx, dtype))

    def make_caches(self) -> Any:
        return make_prompt_cache(self._model)

    def last_logits(self, ids: mx.array, caches: Any) -> mx.array:
        if ids.shape[1] > 1:
            self._model(ids[:, :-1], cache=caches)
            mx.eval([cache.state for cache in caches])
        last: mx.array = self._model(ids[:, -1:], cache=caches)
        return last

    def logits(self, ids: mx.array) -> mx.array:
        whole: mx.array = self._model(ids).astype(mx.float32)
        return whole

    @staticmethod
    def cache_bytes(caches: Any) -> int:
        return sum(x.nbytes for cache in caches for x in cache.state if isinstance(x, mx.array))


CONTENDERS: Mapping[str, type[Contender]] = {
    "mlx_impl": MlxImpl,
    "mlx_impl mapped": MlxImplMapped,
    "mlx_lm": MlxLm,
}
