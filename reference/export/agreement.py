"""How well two independent computations of the same tensors agree."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gemma4_contract import Policy
from gemma4_contract.tensors import Array


def relative_rms(a: Array, b: Array, valid: Array | None = None) -> float:
    """sqrt(mean (a - b)^2 / mean b^2) over the valid entries; 0 if a equals b, infinite if only b is 0."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if valid is not None:
        a, b = a[valid], b[valid]
    difference, scale = float(np.sum((a - b) ** 2)), float(np.sum(b**2))
    if difference == 0.0:
        return 0.0
    return float(np.sqrt(difference / scale)) if scale else float("inf")


def agreement_limit(policy: Policy, positions: Array | None) -> float:
    """The largest accepted difference: max(agreement, agreement_per_position * furthest position).

    RoPE multiplies a frequency by the position, so an error in the frequency's last bit grows with the position.
    """
    furthest = 0 if positions is None else int(positions.max())
    return max(policy.agreement, policy.agreement_per_position * furthest)


def worst_difference(
    derived: Mapping[str, Array], golden: Mapping[str, Array], valid: Mapping[str, Array | None] | None = None
) -> tuple[float, str]:
    """Largest relative RMS difference over the taps that both have, and its tap.

    Different shapes count as infinite, and NaN as worse than infinite. ValueError if they have no tap in common.
    """
    common = [name for name in golden if name in derived]
    if not common:
        raise ValueError("the two derivations have no tap in common")
    figures = {
        name: relative_rms(derived[name], golden[name], valid[name] if valid else None)
        if derived[name].shape == golden[name].shape
        else float("inf")
        for name in common
    }
    name = max(figures, key=lambda tap: (math.isnan(figures[tap]), figures[tap]))  # max alone would pass over NaN
    return figures[name], name
