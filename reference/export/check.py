"""Compares fixtures that are made again with the stored ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemma4_contract import Policy, tensors
from gemma4_contract.documents import read_model
from gemma4_contract.progress import Progress
from reference.export.agreement import agreement_limit, worst_difference
from reference.export.exporter import GENERATED, staged

_MEASURED = {"case.json": "provenance", "model.json": "acceptance"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Files that are equal to the bit, files whose goldens agree within rounding, and a line for each difference."""

    equal: int
    close: int
    faults: list[str]


def check(root: Path, progress: Progress) -> Comparison:
    """Make everything again beside `root` and compare; `root` is not touched."""
    policy = read_model(root / "floors" / "policy.json", Policy)
    with staged(root, progress) as made:
        return _compare(made, root, policy)


def _compare(made: Path, stored: Path, policy: Policy) -> Comparison:
    equal, close, faults = 0, 0, []
    names = sorted(_files(made) | _files(stored))
    for name in names:
        new, old = made / name, stored / name
        if not new.exists() or not old.exists():
            faults.append(f"{name}: {'not made' if old.exists() else 'not stored'}")
        elif new.read_bytes() == old.read_bytes():
            equal += 1
        elif fault := _difference(new, old, policy):
            faults.append(f"{name}: {fault}")
        else:
            close += 1
    return Comparison(equal=equal, close=close, faults=faults)


def _files(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix() for part in GENERATED for path in (root / part).rglob("*") if path.is_file()
    }


def _difference(new: Path, old: Path, policy: Policy) -> str:
    """The differences beyond rounding; empty if there are none."""
    if new.name in _MEASURED:
        return "" if _essence(new) == _essence(old) else "another description"
    if not new.name.startswith("expected"):
        return "other bytes"
    made, stored = tensors.read(new), tensors.read(old)
    if made.keys() != stored.keys():
        return "other tensors"
    figure, tap = worst_difference(made, stored)
    inputs = new.with_name("inputs.safetensors")
    positions = tensors.read(inputs).get("positions") if inputs.exists() else None
    limit = policy.agreement_f32 if made[tap].dtype == np.float32 else agreement_limit(policy, positions)
    return "" if figure <= limit else f"{tap} differs by {figure:.1e} (relative RMS), expected at most {limit:.0e}"


def _essence(path: Path) -> Any:
    """A case.json or model.json without the measured figures and the digests of goldens."""
    case = json.loads(path.read_text(encoding="utf-8"))
    case.pop(_MEASURED[path.name])
    for key in ("golden", "golden_f32"):
        case.get(key, {}).pop("sha256", None)
    for tap in case.get("taps", []):
        tap.pop("sha256")
    return case
