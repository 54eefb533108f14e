"""Root-mean-square normalisation, the only norm of the family."""

import mlx.core as mx

from mlx_impl.model.params import Block


def rms_norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis.

    The weight itself multiplies, and not 1 + weight, as in Gemma 1 to 3.

    x [..., E] any float dtype, weight [E] or None -> [..., E] in x's dtype, computed in float32.
    Source: `rms_norm_eps`.
    """
    x32 = x.astype(mx.float32)
    mean_square = mx.mean(x32 * x32, axis=-1, keepdims=True)  # [..., 1]
    y32 = x32 * mx.rsqrt(mean_square + eps)
    if weight is not None:
        y32 = y32 * weight.astype(mx.float32)
    return y32.astype(x.dtype)


class Norm(Block):
    """Holds the weight [width] of one `rms_norm`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((width,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        """x [..., width] -> the same shape and dtype."""
        return rms_norm(x, self.weight, self.eps)
