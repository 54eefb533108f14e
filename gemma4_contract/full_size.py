"""Fixtures whose weights do not ship: those of models at full size, and those of the user's own checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gemma4_contract import checkpoint
from gemma4_contract.errors import FixtureError
from gemma4_contract.store import Fixtures
from gemma4_contract.weights import Weights

FOLDER = "full"


def at_full_size(fixtures: Fixtures, checkpoints: Path) -> Fixtures:
    """The folder `full` of the fixtures; `checkpoints` holds materialised weights, a folder for each model."""
    return Fixtures(fixtures.root / FOLDER, within=fixtures, weights=Weights(root=checkpoints))


def own_goldens(fixtures: Fixtures, root: Path, directory: Path, *, cure: str) -> Fixtures:
    """The goldens in `root` that were made from the checkpoint in `directory`, judged by the policy of `fixtures`.

    FixtureError, with this cure, if there are none of this model, or if they were made from another configuration.
    """
    model = own_id(directory)
    if not (root / "models" / model).is_dir():
        raise FixtureError(root, got=f"no goldens of {model}", expected="some", cure=cure)
    made = Fixtures(root, within=fixtures, weights=Weights(root=directory, is_own=True), model=model)
    if own_config(directory) != checkpoint.read_config(made.card_dir(model)):
        expected = f"the configuration that the goldens in {root} were made of"
        raise FixtureError(directory / "config.json", got="another", expected=expected, cure=cure)
    return made


def own_id(directory: Path) -> str:
    """The id of a checkpoint's model: the folder's name in the letters of an id."""
    return re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-") or "checkpoint"


def own_config(directory: Path) -> dict[str, Any]:
    """The config.json of a checkpoint of the user's own; FixtureError where the folder has none."""
    if not (directory / "config.json").is_file():
        cure = "name the folder that the checkpoint's config.json and safetensors are in"
        raise FixtureError(directory, got="no config.json in it", expected="the folder of a checkpoint", cure=cure)
    return checkpoint.read_config(directory)
