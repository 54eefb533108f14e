"""The scaled token embedding."""

import math

import mlx.core as mx

from mlx_impl.model import params
from mlx_impl.model.params import Weight


def embedding_scale(hidden_size: int, dtype: mx.Dtype) -> mx.array:
    """sqrt(D) rounded to `dtype`: 39.25 and not 39.1918 for D = 1536 in bf16. Source: `hidden_size`."""
    return mx.array(math.sqrt(hidden_size), dtype=dtype)  # a scalar []


def scaled_embedding(ids: mx.array, table: Weight) -> mx.array:
    """table[ids] * sqrt(D), both in the table's dtype.

    ids [B, L] integers, table [V, D] -> [B, L, D]. The table itself stays unscaled: the logits use it too.
    """
    rows = params.lookup(ids, table)  # [B, L, D]
    return rows * embedding_scale(rows.shape[-1], rows.dtype)
