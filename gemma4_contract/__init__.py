"""What judge, reference and ports share: the fixture format, checkpoints as files, and the protocol's messages.

The only code that reads and writes `fixtures/`. No torch, no mlx, no oracle, no command line.
"""

from gemma4_contract.documents import default_root
from gemma4_contract.errors import FixtureError
from gemma4_contract.models import Case, Floors, GoldenPointer, ModelCard, Plan, Policy, Provenance, TapSpec, TensorFile
from gemma4_contract.store import Fixtures

__version__ = "0.1.0"
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
