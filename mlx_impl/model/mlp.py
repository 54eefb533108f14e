"""The gated feed-forward network."""

import math

import mlx.core as mx

from mlx_impl.model import params
from mlx_impl.model.params import Weight
from mlx_impl.model.taps import Tap, unwatched


def gelu_tanh(x: mx.array) -> mx.array:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): [...] -> the same shape and dtype, computed in float32.

    Source: `hidden_activation` = "gelu_pytorch_tanh".
    """
    x32 = x.astype(mx.float32)
    inner = math.sqrt(2.0 / math.pi) * (x32 + 0.044715 * x32 * x32 * x32)
    return (0.5 * x32 * (1.0 + mx.tanh(inner))).astype(x.dtype)


def gated_mlp(x: mx.array, gate: Weight, up: Weight, down: Weight, tap: Tap = unwatched) -> mx.array:
    """down(gelu_tanh(gate x) * (up x)): x [B, L, D], gate and up [F, D], down [D, F] -> [B, L, D] in x's dtype.

    Source: `intermediate_size`, doubled on KV-shared layers by `use_double_wide_mlp`.
    """
    act = gelu_tanh(params.project(x, gate)) * params.project(x, up)  # [B, L, F]
    act = tap("mlp.act", act)
    out = params.project(act, down)  # [B, L, D]
    return tap("mlp.down_proj", out)
