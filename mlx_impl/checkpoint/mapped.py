"""A table that stays in its file: the system maps the file, and only the rows that are looked up are read.

Half of E2B's parameters are per-layer embeddings, and a token needs one row of them. Processes share the pages.
"""

import mmap
from collections.abc import Mapping

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_impl.checkpoint.files import Stored
from mlx_impl.checkpoint.quantize import Format

# BF16 is read as its 16 bits, because NumPy has no such dtype.
_DTYPES = {
    "F32": (np.float32, mx.float32),
    "F16": (np.float16, mx.float16),
    "BF16": (np.uint16, mx.bfloat16),
    "U32": (np.uint32, mx.uint32),
}


class MappedTable:
    """A table [V, width], plain or quantised, that gives the same rows as the table in memory.

    Reading a row needs the id on the host, so the row of a token is read when the token is known.
    """

    def __init__(self, parts: Mapping[str, Stored], dtype: mx.Dtype, form: Format | None) -> None:
        """`parts` are `weight`, and `scales` and `biases` if there is a format; rows are returned in `dtype`."""
        self._parts = {name: _mapped(stored) for name, stored in parts.items()}
        self._stored = {name: _DTYPES[stored.dtype][1] for name, stored in parts.items()}
        self._dtype = dtype
        self._form = form

    def __call__(self, ids: mx.array) -> mx.array:
        """ids [...] integers -> [..., width] in the table's dtype."""
        wanted = np.array(ids).reshape(-1)
        rows = {name: self._rows(name, wanted) for name in self._parts}
        if self._form is None:
            found = rows["weight"].astype(self._dtype)
        else:
            scales, biases = rows["scales"].astype(self._dtype), rows["biases"].astype(self._dtype)
            found = mx.dequantize(
                rows["weight"], scales, biases, group_size=self._form.group_size, bits=self._form.bits
            )
        return found.reshape(*ids.shape, -1)

    def _rows(self, name: str, ids: npt.NDArray[np.integer]) -> mx.array:
        return mx.array(self._parts[name][ids]).view(self._stored[name])


def _mapped(stored: Stored) -> npt.NDArray[np.generic]:
    """A tensor of a file as an array that reads each page when it is needed, and no pages next to it."""
    dtype, _ = _DTYPES[stored.dtype]
    with stored.file.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):  # or else the system reads ahead a hundred kilobytes at every row
        pages.madvise(mmap.MADV_RANDOM)
    rows, width = stored.shape
    return np.frombuffer(pages, dtype, rows * width, stored.offset).reshape(rows, width)
