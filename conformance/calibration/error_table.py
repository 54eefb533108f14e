"""Errors of honest answers by tap and family, and the floors made from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Context, Decimal

import numpy as np

from conformance.judging.compare import Error, measure
from conformance.judging.routing import Choice, TapLike, comparable_rows
from conformance.judging.tolerance import Tolerance
from gemma4_contract import Policy
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array
from reference.export.errors import ExportError

Key = tuple[str, str]
"""(case id of the golden, tap)."""
Allowed = Callable[[Key, list[float]], Tolerance | None]
"""The tolerance that a floor gives at a key; None if the key is not judged by floor."""


@dataclass(slots=True)
class Worst:
    """Largest errors at one tap."""

    rms: float = 0.0
    max: float = 0.0

    def add(self, error: Error) -> None:
        self.rms, self.max = max(self.rms, error.rms), max(self.max, error.max)


class ErrorTable:
    """The largest errors of each family at every tap; `worst` is (case id of the golden, tap) -> family -> errors."""

    def __init__(self) -> None:
        self.worst: dict[Key, dict[str, Worst]] = defaultdict(lambda: defaultdict(Worst))

    def add(self, case: str, family: str, errors: Iterable[tuple[str, Error]]) -> None:
        """Add the errors of one answer, tap by tap, to those of its family."""
        for tap, error in errors:
            self.worst[case, tap][family].add(error)

    def floors(self) -> dict[str, dict[str, list[float]]]:
        """Case -> tap -> [rms, max], the largest of any family."""
        floors: dict[str, dict[str, list[float]]] = defaultdict(dict)
        for (case, tap), families in sorted(self.worst.items()):
            rms, peak = (max(getattr(worst, which) for worst in families.values()) for which in ("rms", "max"))
            floors[case][tap] = [rounded_up(rms), rounded_up(peak)]
        return dict(floors)

    def leave_one_out(self, allowed: Allowed, policy: Policy) -> dict[str, float]:
        """For each family its largest error over the floor of the others; under `floor_factor` it would still pass."""
        ratios: dict[str, float] = defaultdict(float)
        for key, families in self.worst.items():
            for family, worst in families.items():
                others = [other for name, other in families.items() if name != family]
                floor = [max((getattr(other, which) for other in others), default=0.0) for which in ("rms", "max")]
                limits = allowed(key, floor) if others else None
                if limits is None:
                    continue
                for error, limit in ((worst.rms, limits.rms), (worst.max, limits.max)):
                    if error:
                        ratios[family] = max(ratios[family], policy.floor_factor * error / limit)
        return {family: float(f"{ratio:.3g}") for family, ratio in sorted(ratios.items())}


def certain_rows(
    taps: Sequence[TapLike], shapes: Mapping[str, Sequence[int]], choices: Mapping[str, Choice]
) -> Mapping[str, Array]:
    """The rows [B, L] of every tap with axes B and L, up to the row where the answer chose other experts."""
    return comparable_rows(taps, shapes, choices, lambda _, margins: np.ones(margins.shape, bool)).rows


def errors_of(
    who: str,
    axes: Mapping[str, Sequence[str]],
    golden: Mapping[str, Array],
    answer: Mapping[str, Array],
    rows: Mapping[str, Array],
) -> Iterator[tuple[str, Error]]:
    """The errors of an honest answer in the rows that count; ExportError for a wrong shape, NaN or infinity."""
    for tap, value in answer.items():
        if value.shape != golden[tap].shape:
            raise ExportError(f"{who} answers {tap} in shape {value.shape}, not {golden[tap].shape}")
        valid = spread_mask(rows[tap], axes[tap], value.shape) if tap in rows else None
        if valid is not None and not valid.any():
            continue
        error = measure(value, golden[tap], valid)
        if not (math.isfinite(error.rms) and math.isfinite(error.max)):
            raise ExportError(f"{who} answers {tap} with NaN or infinity, which sets no floor")
        yield tap, error


def rounded_up(error: float) -> float:
    """Two significant digits, never below the measured error."""
    return float(Context(prec=2, rounding=ROUND_UP).create_decimal(Decimal(repr(error))))
