"""RoPE and the core of attention in few operations.

L tokens of a pass, S columns, H query heads, K key/value heads, n heads of any kind, E head dim.
"""

import mlx.core as mx

Rotation = tuple[mx.array, mx.array]
"""cos [L, 1, 1, E/2] of the angles of L positions, and sin [L, 1, 2, E/2] with the sign that each half takes."""


def rotation(position: mx.array, length: int, inv_freq: mx.array) -> Rotation:
    """cos and sin of (position + l) * inv_freq for l < L, in float32."""
    angles = (position + mx.arange(length))[:, None, None, None].astype(mx.float32) * inv_freq
    sin = mx.sin(angles)
    return mx.cos(angles), mx.concatenate([-sin, sin], axis=-2)


@mx.compile
def rotate(
    x: mx.array, weight: mx.array, partner_weight: mx.array, is_value: mx.array, cos: mx.array, sin: mx.array
) -> mx.array:
    """`rope.apply_rope` of x * weight in float32, in one operation without a copy; values are not changed.

    x [L, n, E], weight [n, 2, E/2], partner_weight the same with its halves exchanged, is_value [n, 1, 1], and a
    `Rotation` -> [L, n, 2, E/2] in x's dtype.
    """
    halves = x.reshape(*x.shape[:-1], 2, -1)
    partner = halves[..., ::-1, :].astype(mx.float32) * partner_weight
    halves = halves.astype(mx.float32)  # not earlier: on views of x the whole chain stays one operation
    return mx.where(is_value, halves, halves * weight * cos + partner * sin).astype(x.dtype)


def heads_first(x: mx.array, width: int) -> mx.array:
    """[L, n, ...] with `width` elements in each head -> [1, n, L, width]."""
    length, heads = x.shape[:2]
    if length == 1:
        return x.reshape(1, heads, 1, width)
    return x.reshape(1, length, heads, width).swapaxes(1, 2)


class Attended:
    """Keys and values of one pass, for their layer and for the layers that share them."""

    def __init__(self, kv: mx.array, bias: mx.array | None) -> None:
        """kv [1, 2K, S, E]; bias [L, S], [1, K, H/K, S] or None: 0 where a column is seen, -inf elsewhere."""
        self._keys, self._values = mx.split(kv, 2, axis=1)
        self._columns = self._keys.swapaxes(-1, -2)
        self._bias = bias

    def __call__(self, q: mx.array) -> mx.array:
        """softmax(q k^T + bias) v: q [1, H, L, E] of all tokens, or of the last one only -> [L, H*E]."""
        length = q.shape[2]
        bias = self._bias if self._bias is None else self._bias[-length:]
        if length == 1:
            return self._of_one_token(q, bias)
        context = mx.fast.scaled_dot_product_attention(q, self._keys, self._values, scale=1.0, mask=bias)
        return context.swapaxes(1, 2).reshape(length, -1)

    def _of_one_token(self, q: mx.array, bias: mx.array | None) -> mx.array:
        """The same for L = 1 in the fewest products: the queries of a key head are the rows of one matrix."""
        heads, width = self._keys.shape[1], q.shape[-1]
        rows = q.reshape(1, heads, -1, width)  # [1, K, H/K, E]
        scores = rows @ self._columns if bias is None else mx.addmm(bias, rows, self._columns)  # [1, K, H/K, S]
        context = mx.softmax(scores, axis=-1, precise=True) @ self._values  # [1, K, H/K, E]
        return context.reshape(1, -1)


def prefill_bias(length: int, columns: int, window: int | None, dtype: mx.Dtype) -> mx.array | None:
    """The bias [L, S] for L queries, where the last L of S columns are new; None if one query sees all columns."""
    if length == 1 and (window is None or columns <= window):
        return None
    query = mx.arange(columns - length, columns)[:, None]  # [L, 1]
    key = mx.arange(columns)  # [S]
    seen = key <= query
    if window is not None:
        seen &= key > query - window
    return mx.where(seen, 0.0, -mx.inf).astype(dtype)
