"""Stores a streaming pass between two layers in a file, to continue it later: arrays and JSON in one .npz."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gemma4_contract.files import write_atomic
from gemma4_contract.tensors import Array
from reference.oracle.decoder import Halt
from reference.oracle.kv_cache import KeyValues
from reference.streaming.stored_taps import StoredTap

_FACTS = "facts"
_DONOR = ("keys", "values", "positions", "valid")
_KEPT = ("values", "chosen", "margins")


def save(path: Path, halt: Halt, kept: Mapping[str, StoredTap]) -> None:
    """Write the state of a pass, and the taps stored so far."""
    arrays: dict[str, Array] = {"h": halt.h}
    for layer, lent in halt.donors.items():
        arrays |= {f"donors/{layer}/{part}": getattr(lent, part) for part in _DONOR}
    for name, one in kept.items():
        parts = {part: getattr(one, part) for part in _KEPT}
        arrays |= {f"kept/{name}/{part}": value for part, value in parts.items() if value is not None}
    indices = {name: {axis: list(taken) for axis, taken in one.indices.items()} for name, one in kept.items()}
    facts = {
        "layers": halt.layers,
        "donors": list(halt.donors),
        "kept": {name: {"whole": one.whole, "indices": indices[name], "rms": one.rms} for name, one in kept.items()},
    }
    file = io.BytesIO()
    np.savez(file, **arrays, **{_FACTS: np.array(json.dumps(facts))})  # type: ignore[arg-type]  # of allow_pickle
    write_atomic(path, file.getvalue())


def load(path: Path) -> tuple[Halt, dict[str, StoredTap]]:
    """The state of a pass, and the taps stored so far."""
    with np.load(path, allow_pickle=False) as arrays:
        facts = json.loads(str(arrays[_FACTS]))
        donors = {
            layer: KeyValues(**{part: arrays[f"donors/{layer}/{part}"] for part in _DONOR}) for layer in facts["donors"]
        }
        kept = {
            name: StoredTap(
                whole=tuple(one["whole"]),
                indices=one["indices"],
                rms=one["rms"],
                **{part: arrays[key] for part in _KEPT if (key := f"kept/{name}/{part}") in arrays},
            )
            for name, one in facts["kept"].items()
        }
        return Halt(layers=facts["layers"], h=arrays["h"], donors=donors), kept
