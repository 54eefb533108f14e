"""Safetensors files as NumPy arrays; BF16 is `ml_dtypes.bfloat16`, and every fault is an error of one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from gemma4_contract.errors import FixtureError
from gemma4_contract.files import sha256, write_atomic

Array = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}
CHECKPOINT_DTYPES: Mapping[str, np.dtype[Any]] = {**DTYPES, "U32": np.dtype("<u4")}
"""Dtypes of checkpoints: also U32, in which quantised weights are packed."""


def dtype_name(array: Array) -> str:
    """The safetensors name of an array's dtype, such as `F32`; ValueError if the format has no such dtype."""
    for name, dtype in DTYPES.items():
        if array.dtype == dtype:
            return name
    raise ValueError(f"dtype {array.dtype} has no name in the fixture format (known: {', '.join(DTYPES)})")


def tensor_digest(array: Array) -> str:
    """SHA-256 of a tensor's little-endian row-major bytes."""
    return sha256(np.ascontiguousarray(array).tobytes())


def encode(tensors: Mapping[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file; names are sorted, so that equal tensors give equal bytes."""
    # ascontiguousarray makes scalars one-dimensional, hence the reshape.
    whole = {name: np.ascontiguousarray(tensors[name]).reshape(tensors[name].shape) for name in sorted(tensors)}
    return safetensors.numpy.save(whole, metadata)


def write(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write a safetensors file atomically."""
    write_atomic(path, encode(tensors))


def decode(data: bytes, path: Path | str) -> dict[str, Array]:
    """Every tensor of a safetensors file, from its bytes; FixtureError if they are not such a file."""
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]  # theirs to annotate
    except safetensors.SafetensorError as error:
        raise _unreadable(path, len(data), error) from None
    return {name: _array(path, name, entry["dtype"], entry["shape"], entry["data"]) for name, entry in entries}


def read(path: Path) -> dict[str, Array]:
    """Every tensor of a safetensors file; FixtureError if it is missing or broken."""
    return decode(read_bytes(path), path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor in a file, of which a part can be read."""

    path: Path
    name: str
    dtype: str
    """The name in the file; it may be missing in CHECKPOINT_DTYPES."""
    shape: tuple[int, ...]
    offset: int
    """The place of its first byte in the file."""

    def read(self, start: int, stop: int) -> Array:
        """The elements [start, stop) in row-major order; FixtureError if the format has no such dtype."""
        dtype = _known(self.path, self.name, self.dtype, CHECKPOINT_DTYPES)
        with self.path.open("rb") as file:
            file.seek(self.offset + start * dtype.itemsize)
            return np.frombuffer(file.read((stop - start) * dtype.itemsize), dtype)

    def whole(self) -> Array:
        """The whole tensor."""
        return self.read(0, math.prod(self.shape)).reshape(self.shape)


def read_lazily(path: Path) -> dict[str, Stored]:
    """The tensors of a file that is too large for memory, not read yet; FixtureError if it is missing or broken."""
    try:
        with path.open("rb") as file, safetensors.safe_open(path, "numpy"):  # which checks the file
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
    except safetensors.SafetensorError as error:
        raise _unreadable(path, path.stat().st_size, error) from None
    except OSError as error:
        raise _unopened(path, error) from None
    header.pop("__metadata__", None)
    return {
        name: Stored(
            path=path,
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            offset=start + entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }


def _array(path: Path | str, name: str, dtype: str, shape: list[int], data: bytes | bytearray) -> Array:
    return np.frombuffer(data, _known(path, name, dtype, DTYPES)).reshape(shape)


def _known(path: Path | str, name: str, dtype: str, known: Mapping[str, np.dtype[Any]]) -> np.dtype[Any]:
    if dtype not in known:
        raise FixtureError(
            path,
            got=f"dtype {dtype} in tensor {name}",
            expected=f"one of {', '.join(known)}",
            cure="write the tensor in one of these dtypes",
        )
    return known[dtype]


def _unreadable(path: Path | str, size: int, error: Exception) -> FixtureError:
    return FixtureError(
        path,
        got=f"{size} bytes that safetensors cannot read ({error})",
        expected="a complete safetensors file",
        cure="restore the file (git checkout, or download it again)",
    )


def _unopened(path: Path, error: OSError) -> FixtureError:
    return FixtureError(
        path,
        got=error.strerror or type(error).__name__,
        expected="a readable file",
        cure="restore it (git checkout fixtures/), or regenerate with `gemma4-conformance export`",
    )


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; FixtureError if it cannot be opened."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unopened(path, error) from None
