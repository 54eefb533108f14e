"""Safetensors files as NumPy arrays, with BF16 through `ml_dtypes` and every fault told in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from reference.format.errors import FixtureError
from reference.format.files import sha256, write_atomic

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


def dtype_name(array: Array) -> str:
    """The safetensors name of an array's dtype, `F32` for float32; ValueError when the format has none."""
    for name, dtype in DTYPES.items():
        if array.dtype == dtype:
            return name
    raise ValueError(f"dtype {array.dtype} has no name in the fixture format (known: {', '.join(DTYPES)})")


def tensor_digest(array: Array) -> str:
    """SHA-256 of a tensor's little-endian row-major bytes."""
    return sha256(np.ascontiguousarray(array).tobytes())


def encode(tensors: Mapping[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file; names sorted, so that equal tensors give equal bytes."""
    # ascontiguousarray makes scalars one-dimensional, hence the reshape.
    whole = {name: np.ascontiguousarray(tensors[name]).reshape(tensors[name].shape) for name in sorted(tensors)}
    return safetensors.numpy.save(whole, metadata)


def write(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write a safetensors file atomically."""
    write_atomic(path, encode(tensors))


def decode(data: bytes, path: Path | str) -> dict[str, Array]:
    """Every tensor of a safetensors file's bytes; FixtureError when they are no such file."""
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]  # theirs to annotate
    except safetensors.SafetensorError as error:
        raise FixtureError(
            path,
            got=f"{len(data)} bytes that safetensors cannot read ({error})",
            expected="a complete safetensors file",
            cure="restore the file (git checkout, or download it again)",
        ) from None
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise FixtureError(
                path,
                got=f"dtype {entry['dtype']} in tensor {name}",
                expected=f"one of {', '.join(DTYPES)}",
                cure="write the tensor in one of these dtypes",
            )
        arrays[name] = np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def read(path: Path) -> dict[str, Array]:
    """Every tensor of a safetensors file; FixtureError when it is missing or broken."""
    return decode(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; FixtureError when it cannot be opened."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FixtureError(
            path,
            got=error.strerror or type(error).__name__,
            expected="a readable file",
            cure="restore it (git checkout fixtures/), or regenerate with `gemma4-conformance export`",
        ) from None
