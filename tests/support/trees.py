"""Small copies of the fixtures, to be damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemma4_contract import Fixtures, default_root

ROPE = "module/rope/default-at-511"
LAYER = "layer/e2b-mini/sliding-own"
POINTER = "forward/e2b-mini/uniform-l2/no-cache"
OWNER = "forward/e2b-mini/uniform-l19/no-cache"


def small_tree(root: Path) -> Path:
    """The fixtures with four cases and one model, sums included."""
    source = default_root()
    cases = (f"cases/{case}" for case in (ROPE, LAYER, POINTER, OWNER))
    for folder in ("floors", "profiles", "schema", "models/e2b-mini", *cases):
        shutil.copytree(source / folder, root / folder)
    Fixtures(root).write_sums()
    return root


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")
