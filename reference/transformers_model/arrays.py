"""Arrays between NumPy and torch, always copied, with bfloat16 as `ml_dtypes.bfloat16` on the NumPy side."""

from typing import Final, Literal

import ml_dtypes
import numpy as np
import torch

from gemma4_contract.tensors import Array as Array

DType = Literal["float64", "float32", "bfloat16", "float16"]

TORCH_DTYPES: Final[dict[str, torch.dtype]] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def to_torch(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """Copy an array of any float dtype, bfloat16 included, into a tensor of `dtype`."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16).to(dtype)
    return torch.tensor(array).to(dtype)


def to_numpy(tensor: torch.Tensor, dtype: torch.dtype) -> Array:
    """Copy a tensor into a C-ordered array of `dtype`; later in-place changes of the tensor do not reach it."""
    copied = tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
    if dtype == torch.bfloat16:
        bits: Array = copied.view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: Array = copied.numpy()
    return array
