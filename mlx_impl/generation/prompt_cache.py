"""The caches of a prompt: saved in a file, and used again for another prompt with the same beginning.

A sliding layer keeps its window only. Its cache cannot go back to a token when it has dropped columns that this token
sees. Then it goes back to an earlier `Mark`, or starts empty. It never continues with missing columns.

K key/value heads, S columns, E head dim, n tokens fed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import mlx.core as mx
import numpy as np

from mlx_impl.checkpoint.files import read_header
from mlx_impl.errors import MlxImplError, problem, shown
from mlx_impl.generation.generate import Cache, Model
from mlx_impl.model.config import Config
from mlx_impl.model.kv_cache import KV

FORMAT = "mlx_impl prompt cache"
VERSION = "1"
_PLE_TABLE = "model.embed_tokens_per_layer."  # a mapped table is no parameter
_CURE = "delete it, and the prompt is computed again"


class KeptCache(Cache, Protocol):
    """A cache that can be read and filled: those of `kv_cache`, and `StaticCache`."""

    window: int | None

    @property
    def kept(self) -> KV | None:
        """The columns that are kept."""

    def restore(self, kept: KV, offset: int) -> None:
        """Hold these columns, the newest of `offset`."""

    def fresh(self) -> Self:
        """An empty cache for the same layer."""


C = TypeVar("C", bound=KeptCache)


class StoredModel(Model[C], Protocol[C]):
    """A model that a file of caches belongs to: `Decoder` and `FusedDecoder`, which read each other's files."""

    def tensors(self) -> dict[str, mx.array]:
        """Every parameter by its name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mark:
    """A state to go back to: the windows of all sliding layers after the tokens `fed`.

    There is one entry for each cache; it is None for full layers, which drop nothing and can be cut.
    """

    fed: tuple[int, ...]
    windows: tuple[KV | None, ...]


def mark(caches: Sequence[KeptCache], fed: Sequence[int]) -> Mark:
    """A mark of the present state of these caches; it keeps window - 1 columns of each sliding layer.

    Raises MlxImplError if the caches do not hold as many tokens as `fed`.
    """
    _check_fed(caches, fed)
    windows = tuple(None if cache.window is None else _kept(cache) for cache in caches)
    return Mark(fed=tuple(fed), windows=windows)


def reuse(
    caches: Sequence[C], fed: Sequence[int], ids: Sequence[int], marks: Sequence[Mark] = ()
) -> tuple[list[C], int]:
    """(caches that hold the first n of `ids`, n), with n as large as the given caches allow, and below len(ids).

    The given caches hold `fed` and are not changed. n is the length of the common prefix if they can go back to it, or
    else the length of the longest mark within it, or else 0. For every n the tokens that follow are the same.
    Raises MlxImplError if the caches do not hold as many tokens as `fed`.
    """
    _check_fed(caches, fed)
    common = 0  # at least one id must be fed, because caches keep no logits
    while common < min(len(fed), len(ids) - 1) and fed[common] == ids[common]:
        common += 1
    if common and all(_can_go_back(cache, common) for cache in caches):
        return [_cut_copy(cache, _kept(cache), cache.offset - common, common) for cache in caches], common
    usable = [m for m in marks if len(m.fed) <= common and m.fed == tuple(fed[: len(m.fed)])]
    best = max(usable, key=lambda m: len(m.fed), default=None)
    if best is None or not best.fed:
        return [cache.fresh() for cache in caches], 0
    count = len(best.fed)
    back = []
    for cache, window in zip(caches, best.windows, strict=True):
        if window is None:
            back.append(_cut_copy(cache, _kept(cache), cache.offset - count, count))
        else:
            back.append(_cut_copy(cache, window, 0, count))
    return back, count


def save(path: str | Path, decoder: StoredModel[C], caches: Sequence[C], fed: Sequence[int]) -> None:
    """Write caches that hold `fed`, at least one token, as safetensors; the file is written completely or not at all.

    Tensors: `ids` [n] int32; `{i}.keys`, `{i}.values` [1, K, S, E] of the i-th cache, for its last S positions.
    Raises MlxImplError if the caches hold other tokens, a batch or pads, and if the file cannot be written.
    """
    _check_fed(caches, fed)
    arrays = {"ids": mx.array(list(fed), dtype=mx.int32)}
    for i, cache in enumerate(caches):
        kv = _kept(cache)
        columns = kv.positions.shape[-1]
        last = mx.arange(len(fed) - columns, len(fed))[None]  # [1, S]
        if kv.valid is not None or kv.positions.shape[0] != 1 or not mx.array_equal(kv.positions, last):
            got = "caches of a batch, with pads or with other positions"
            raise problem("caches", got=got, expected="caches of one plain sequence", cure="feed the sequence alone")
        arrays |= {f"{i}.keys": kv.keys, f"{i}.values": kv.values}
    metadata = {"format": FORMAT, "version": VERSION, "model": fingerprint(decoder)}
    target = Path(path)
    try:
        # It is in the same folder, so that replacing the old file is one step. MLX requires the suffix.
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-", suffix=".safetensors")
        os.close(handle)
        try:
            mx.save_safetensors(name, arrays, metadata)
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except (OSError, RuntimeError) as error:
        got = getattr(error, "strerror", None) or shown(str(error))
        raise problem(str(path), got=got, expected="a place to write to", cure="choose another") from None


def load(path: str | Path, decoder: StoredModel[C]) -> tuple[list[C], list[int]]:
    """The caches of a file, and the ids that they hold.

    Raises MlxImplError for a file that is missing or truncated, that belongs to another version or another model (other
    weights or another dtype make another model), or whose tensors do not fit this model.
    """
    target = Path(path)
    if not target.is_file():
        raise problem(str(path), got="no such file", expected="a prompt cache", cure="correct the path")
    try:
        read_header(target)  # MLX accepts bytes that belong to no tensor
        loaded = mx.load(str(target), format="safetensors", return_metadata=True)
    except (MlxImplError, RuntimeError, ValueError):
        raise _unusable_file(target, "a file that is broken or cut off", "a complete safetensors file") from None
    assert isinstance(loaded, tuple)  # by return_metadata
    arrays, metadata = loaded
    assert isinstance(arrays, dict)
    said = (metadata.get("format"), metadata.get("version"))
    if said != (FORMAT, VERSION):
        raise _unusable_file(
            target, f"format {shown(said[0])}, version {shown(said[1])}", f"{FORMAT!r}, version {VERSION!r}"
        )
    if metadata.get("model") != fingerprint(decoder):
        raise _unusable_file(target, "the cache of another model", "a cache of these weights in this dtype")
    ids = arrays.pop("ids", mx.zeros((0,)))
    if ids.dtype != mx.int32 or ids.ndim != 1 or not ids.size:
        raise _unusable_file(target, f"ids of shape {tuple(ids.shape)}", "[n] int32")
    fresh = decoder.make_caches()
    _check_tensors(target, decoder.config, arrays, ids.size)
    at = mx.arange(ids.size)[None]  # [1, n]
    for i, cache in enumerate(fresh):
        keys, values = arrays[f"{i}.keys"], arrays[f"{i}.values"]
        kv = KV(keys=keys, values=values, positions=at[:, ids.size - keys.shape[2] :], valid=None)
        fresh[i] = _cut_copy(cache, kv, 0, ids.size)
    mx.eval([cache.arrays for cache in fresh])
    return fresh, ids.tolist()  # type: ignore[return-value]  # one axis makes a flat list


def fingerprint(decoder: StoredModel[C]) -> str:
    """SHA-256, in hexadecimal, of the configuration and of every parameter's name, shape, dtype and first row.

    Checkpoints of one architecture that were fine-tuned or quantised differently differ in the first row of some
    parameter. Reading all rows would take as long as loading the model.
    """
    digest = hashlib.sha256(repr(dataclasses.astuple(decoder.config)).encode())
    for name, value in sorted(decoder.tensors().items()):
        if name.startswith(_PLE_TABLE):
            continue
        row = value.reshape(-1, value.shape[-1])[0]
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(np.array(row.view(mx.uint8)).tobytes())
    return digest.hexdigest()


def _check_fed(caches: Sequence[KeptCache], fed: Sequence[int]) -> None:
    offsets = {cache.offset for cache in caches}
    if offsets != {len(fed)}:
        got = f"{len(fed)} ids, and caches that hold {sorted(offsets)}"
        raise problem("fed", got=got, expected="exactly what the caches hold", cure="cut it to caches[0].offset")


def _check_tensors(path: Path, config: Config, arrays: dict[str, mx.array], count: int) -> None:
    """Raise MlxImplError unless a file holds exactly this model's keys and values of `count` tokens."""
    expected: dict[str, tuple[int, ...]] = {}
    for i, layer in enumerate(config.own_kv_layers):
        window = config.window_of(layer)
        columns = count if window is None else min(count, window - 1)
        shape = (1, config.kv_heads_of(layer), columns, config.head_dim_of(layer))
        expected |= {f"{i}.keys": shape, f"{i}.values": shape}
    found = {name: tuple(value.shape) for name, value in arrays.items()}
    if found != expected:
        name = min(name for name in found | expected if found.get(name) != expected.get(name))
        raise _unusable_file(path, f"{name} {found.get(name, 'missing')}", f"{expected.get(name, 'no such tensor')}")


def _unusable_file(path: Path, got: str, expected: str) -> MlxImplError:
    return problem(str(path), got=got, expected=expected, cure=_CURE)


def _kept(cache: KeptCache) -> KV:
    kept = cache.kept
    if kept is None:
        raise problem("caches", got="empty caches", expected="at least one token in them", cure="feed a prompt first")
    return kept


def _can_go_back(cache: KeptCache, count: int) -> bool:
    """Whether a cache still holds all columns that the token after the first `count` >= 1 tokens sees."""
    nothing_dropped = _kept(cache).positions.shape[-1] == cache.offset
    return count == cache.offset or nothing_dropped


def _cut_copy(like: C, kv: KV, surplus: int, count: int) -> C:
    """A cache like `like` that has seen `count` tokens and holds kv without its last `surplus` columns."""
    columns = kv.positions.shape[-1] - surplus
    cache = like.fresh()
    kept = KV(
        keys=kv.keys[:, :, :columns],
        values=kv.values[:, :, :columns],
        positions=kv.positions[:, :columns],
        valid=None if kv.valid is None else kv.valid[:, :columns],
    )
    cache.restore(kept, count)
    return cache
