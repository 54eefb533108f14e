"""Tensors survive to the bit, and a broken file is an error in one line."""

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4_contract import FixtureError, tensors
from gemma4_contract.files import sha256
from tests.support.fixture_errors import one_line


def header(entries: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + payload


def whole() -> bytes:
    return tensors.encode({"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, 2], np.int32)})


BAD_TENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes that safetensors cannot read"),
    "garbage": (b"not a tensor file at all", "24 bytes that safetensors cannot read"),
    "truncated": (whole()[:-5], "cannot read"),
    "cut in the header": (whole()[:20], "cannot read"),
    "two bytes too many": (whole() + b"xx", "cannot read"),
    "unknown dtype": (
        header({"odd": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"ab"),
        "dtype F8_E4M3 in tensor odd, expected one of F64, F32, F16, BF16, I64, I32, U8",
    ),
    "no dtype": (header({"odd": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, b"abcd"), "cannot read"),
    "shape that overflows": (
        header({"odd": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, b"abcd"),
        "cannot read",
    ),
}


@pytest.mark.parametrize(("data", "got"), BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_broken_tensor_files_are_told_in_one_line(data: bytes, got: str, tmp_path: Path) -> None:
    path = tmp_path / "expected.safetensors"
    path.write_bytes(data)
    with pytest.raises(FixtureError) as caught:
        tensors.read(path)
    assert one_line(caught.value, path, got)


def test_unreadable_files_are_told_in_one_line(tmp_path: Path) -> None:
    for path, reason in {tmp_path / "none.safetensors": "No such file", tmp_path: "Is a directory"}.items():
        with pytest.raises(FixtureError) as caught:
            tensors.read(path)
        assert one_line(caught.value, path, reason, "expected a readable file", "git checkout")


@given(st.binary(max_size=120), st.integers(0, 119))
def test_no_damage_to_a_tensor_file_raises_anything_else(noise: bytes, at: int) -> None:
    good = whole()
    damaged = good[:at] + noise + good[at + len(noise) :]
    fault, dtypes = "", set()
    try:
        dtypes = {array.dtype for array in tensors.decode(damaged, "file").values()}
    except FixtureError as error:
        fault = str(error)
    assert bool(fault) != bool(dtypes)
    assert "\n" not in fault
    assert dtypes <= set(tensors.DTYPES.values())


def test_tensors_survive_to_the_bit_in_every_dtype(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {name: rng.integers(0, 200, (3, 5)).astype(dtype) for name, dtype in tensors.DTYPES.items()}
    given |= {"scalar": np.array(2.5), "empty": np.zeros((0, 3), np.float32), "strided": np.arange(12.0)[::2]}
    given["transposed"] = np.arange(6.0).reshape(2, 3).T
    tensors.write(tmp_path / "x.safetensors", given)
    back = tensors.read(tmp_path / "x.safetensors")
    assert back.keys() == given.keys()
    for name, array in given.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
        assert back[name].tobytes() == array.tobytes(), name
    assert {name: tensors.dtype_name(back[name]) for name in tensors.DTYPES} == {name: name for name in tensors.DTYPES}


def test_every_bf16_pattern_survives_and_widens_exactly() -> None:
    patterns = np.arange(2**16, dtype=np.uint16)
    back = tensors.decode(tensors.encode({"x": patterns.view(ml_dtypes.bfloat16)}), "file")["x"]
    assert np.array_equal(back.view(np.uint16), patterns)
    wide = (patterns.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(back.astype(np.float32), wide, equal_nan=True)


def test_equal_tensors_give_equal_bytes_whatever_their_order() -> None:
    a, b = np.arange(3.0), np.arange(4, dtype=np.int32)
    assert tensors.encode({"a": a, "b": b}) == tensors.encode({"b": b, "a": a})
    assert tensors.tensor_digest(np.arange(4.0)[::2]) == sha256(struct.pack("<2d", 0.0, 2.0))
    with pytest.raises(ValueError, match="dtype complex128 has no name"):
        tensors.dtype_name(np.zeros(1, complex))
