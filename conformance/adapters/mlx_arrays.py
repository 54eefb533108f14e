"""NumPy arrays to MLX arrays and back without loss, bfloat16 included.

NumPy's buffer protocol has no bfloat16; the sixteen bits are passed as uint16 and viewed as bfloat16 on the
other side (`ml_dtypes.bfloat16`).
"""

from __future__ import annotations

import ml_dtypes
import mlx.core as mx
import numpy as np

from gemma4_contract.profiles import installed_profiles
from gemma4_contract.tensors import Array

OFFERED = ("f32", "bf16", "f16")
"""The profiles that MLX offers; it computes float64 only on the CPU."""
DTYPE_NAMES: dict[str, str] = {name: installed_profiles()[name].dtype for name in OFFERED}
"""Profile -> mlx_impl's name for its dtype."""
PROFILE_DTYPES: dict[str, mx.Dtype] = {name: getattr(mx, dtype) for name, dtype in DTYPE_NAMES.items()}


def to_mlx(array: Array, dtype: mx.Dtype) -> mx.array:
    """The array (any shape) as an MLX array of `dtype`; float64 is rounded to float32 first, as MLX itself does."""
    if array.dtype == ml_dtypes.bfloat16:
        return (
            mx.array(np.ascontiguousarray(array).view(np.uint16)).reshape(array.shape).view(mx.bfloat16).astype(dtype)
        )
    return mx.array(array).astype(dtype)


def to_numpy(array: mx.array) -> Array:
    """The evaluated array, same shape, in the NumPy dtype of the same name; no value changes."""
    if array.dtype == mx.bfloat16:
        return np.array(mx.contiguous(array).view(mx.uint16)).view(ml_dtypes.bfloat16)
    return np.array(array)
