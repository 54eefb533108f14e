"""How a plan cuts a case into calls. B batch, L query length of the whole case, S key length seen so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gemma4_contract.graph import text_graph
from reference.transformers_model.arrays import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the model: its rows of the case, and the padding mask of all keys up to its end."""

    rows: slice  # start:stop along L
    mask: Array  # bool B S, false at pads


def calls_of(
    ids: Array, positions: Array, steps: Sequence[int] | None, left_pad: Sequence[int] | None
) -> tuple[Call, ...]:
    """Cut `ids` (B L) into the calls of a plan; no steps means one call.

    Raises:
        ValueError: if shapes, steps or pads do not fit each other, or a pad has an id or a position other than 0.
    """
    if ids.ndim != 2 or positions.shape != ids.shape:
        raise ValueError(f"ids and positions: got shapes {ids.shape} and {positions.shape}, expected one shape B L")
    batch, length = ids.shape
    pads = [0] * batch if left_pad is None else list(left_pad)
    if len(pads) != batch or not all(0 <= pad < length for pad in pads):
        raise ValueError(f"left_pad: got {pads}, expected {batch} counts from 0 to {length - 1}")
    sizes = [length] if steps is None else list(steps)
    if sum(sizes) != length or min(sizes) < 1:
        raise ValueError(f"steps: got {sizes}, expected counts of at least 1 whose sum is {length}")
    mask = np.arange(length) >= np.array(pads)[:, None]  # B L
    if np.any(ids[~mask]) or np.any(positions[~mask]):
        raise ValueError("left_pad: a pad has an id or a position that is not 0")
    stops = np.cumsum(sizes).tolist()
    return tuple(
        Call(rows=slice(stop - size, stop), mask=mask[:, :stop]) for stop, size in zip(stops, sizes, strict=True)
    )


def join(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join the taps of successive calls along L."""
    if len(parts) == 1:
        return dict(parts[0])
    graph = text_graph()
    return {name: np.concatenate([part[name] for part in parts], graph.length_axis(name)) for name in parts[0]}
