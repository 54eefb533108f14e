"""mlx_impl's fast decoder as a port of its own: it answers whole forward passes, with logits only."""

from __future__ import annotations

import functools
from pathlib import Path

import mlx.core as mx

import mlx_impl
from conformance.adapters.base import Array, Hello, Request, Skip
from conformance.adapters.mlx_arrays import DTYPE_NAMES, to_numpy
from conformance.adapters.mlx_impl.adapter import MlxImplAdapter
from mlx_impl.fast.decoder import FusedDecoder


class MlxImplFusedAdapter:
    """`mlx_impl.fast.decoder` on MLX's default device."""

    def __init__(self) -> None:
        self._decoder = functools.lru_cache(maxsize=4)(_load)
        self._hello_of_plain = MlxImplAdapter().hello()

    def hello(self) -> Hello:
        """The name and version of the implementation, and what it offers."""
        plain = self._hello_of_plain
        return Hello(
            name="mlx_impl fused",
            version=plain.version,
            language=plain.language,
            family=plain.family,
            profiles=plain.profiles,
            kinds=("forward",),
            device=plain.device,
        )

    def run(self, request: Request) -> dict[str, Array]:
        """The logits of a whole pass; each row of the batch runs alone.

        Raises Skip for other kinds, for left padding, and for experts in 16 bits on the CPU, which MLX cannot multiply.
        """
        if request.kind != "forward" or request.model_dir is None:
            raise Skip("only whole forward passes are offered")
        if request.plan is not None and request.plan.left_pad is not None:
            raise Skip("left padding is not offered")
        dtype = DTYPE_NAMES[request.profile]
        decoder = self._decoder(request.model_dir, dtype)
        if decoder.config.moe is not None and dtype != "float32" and mx.default_device() == mx.Device(mx.cpu):
            raise Skip("on the CPU mx.gather_mm multiplies float32 only")
        steps = request.plan.steps if request.plan else None
        ids = mx.array(request.inputs["ids"])  # [B, L]
        rows = [_logits_of_row(decoder, ids[row : row + 1], steps) for row in range(ids.shape[0])]
        return {"logits": to_numpy(mx.concatenate(rows))}


def _load(model_dir: Path, dtype: str) -> FusedDecoder:
    return FusedDecoder(mlx_impl.load(model_dir, dtype))


def _logits_of_row(decoder: FusedDecoder, ids: mx.array, steps: list[int] | None) -> mx.array:
    """ids [1, L] -> logits [1, L, V] over the calls of a plan."""
    caches, start, parts = decoder.make_caches(), 0, []
    for step in steps or [ids.shape[1]]:
        parts.append(decoder(ids[:, start : start + step], caches))
        mx.eval(parts[-1])
        start += step
    return mx.concatenate(parts, axis=1)
