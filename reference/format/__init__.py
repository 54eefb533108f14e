"""The fixture format: the only code that reads and writes `fixtures/` (no torch, no mlx, no oracle)."""

from reference.format.errors import FixtureError
from reference.format.models import (
    Case,
    Floors,
    GoldenPointer,
    ModelCard,
    Plan,
    Policy,
    Provenance,
    TapSpec,
    TensorFile,
)
from reference.format.store import Fixtures, default_root

__all__ = [
    "Case",
    "FixtureError",
    "Fixtures",
    "Floors",
    "GoldenPointer",
    "ModelCard",
    "Plan",
    "Policy",
    "Provenance",
    "TapSpec",
    "TensorFile",
    "default_root",
]
