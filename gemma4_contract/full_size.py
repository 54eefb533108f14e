"""`FullSize`: the goldens of models at full size, whose weights ship nowhere, and those of a user's own checkpoint."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gemma4_contract import checkpoint
from gemma4_contract.documents import read_model
from gemma4_contract.errors import FixtureError
from gemma4_contract.models import ModelCard, Policy
from gemma4_contract.profiles import Profile
from gemma4_contract.store import Fixtures

FOLDER = "full"
ROWS_ALONE = ("model.norm", "logits")
"""Taps that a pass makes of stored rows alone: their root mean square is of these."""
_STORED_BYTES = 2
"""Of a parameter in a materialised checkpoint."""


class FullSize(Fixtures):
    """The folder `full` of the fixtures; `checkpoints` is where materialised weights lie, one folder for each model."""

    def __init__(self, fixtures: Fixtures, checkpoints: Path, root: Path | None = None) -> None:
        super().__init__(root or fixtures.root / FOLDER)
        self.fixtures = fixtures
        self.checkpoints = checkpoints

    def model_dir(self, model_id: str) -> Path:
        """Where the model's weights are, once `gemma4-conformance materialize` has written them."""
        return self.checkpoints / model_id

    options = ""
    """What tells a command that these goldens are meant."""

    def check_model(self, model_id: str) -> None:
        """FixtureError unless the weights are there: whole files alone bear their names."""
        config = self.model_dir(model_id) / "config.json"
        if not config.is_file():
            cure = f"write them: gemma4-conformance materialize {model_id}"
            raise FixtureError(config, got="no such file", expected=f"the weights of {model_id}", cure=cure)

    def with_weights(self, case_ids: Sequence[str]) -> list[str]:
        """The cases whose models' weights are there; FixtureError where none are."""
        models = {case_id: self.case(case_id).model or "" for case_id in case_ids}
        there = [case_id for case_id in case_ids if self.model_dir(models[case_id]).is_dir()]
        if not there:
            cards = {name: read_model(self.card_dir(name) / "model.json", ModelCard) for name in models.values()}
            sizes = sorted((_STORED_BYTES * card.parameters / 1e9, name) for name, card in cards.items())
            smallest, *larger = (f"{name} ({size:.1f} GB)" for size, name in sizes)
            cure = f"write them: gemma4-conformance materialize {smallest}"
            cure += f"; the others: {', '.join(larger)}" if larger else ""
            raise FixtureError(self.checkpoints, got="no weights", expected="those of a model that is asked", cure=cure)
        return there

    def check_floors(self, case_ids: Iterable[str], profile: str) -> None:
        """FixtureError unless floors of all these cases were measured: an answer takes minutes."""
        path = self.floors_path(profile)
        measured = self.floors(profile).floors if path.exists() else {}
        for owner in (self.owner(self.case(case_id)) for case_id in case_ids):
            if owner.id not in measured:
                model = self.options or f" --model {owner.model}"
                cure = f"measure them: gemma4-conformance floors{model} --profile {path.stem}"
                raise FixtureError(path, got=f"no floors of {owner.id}", expected="those of each case", cure=cure)

    @functools.cached_property
    def policy(self) -> Policy:
        """That of the other fixtures."""
        return self.fixtures.policy

    @functools.cached_property
    def known_profiles(self) -> Mapping[str, Profile]:
        """Those of the other fixtures."""
        return self.fixtures.known_profiles

    def faults(self) -> list[FixtureError]:
        """What is wrong with cases, cards and floors; the sums are those of the whole fixtures."""
        return [*self._case_faults(), *self._document_faults()]

    @property
    def sums_root(self) -> Path:
        """That of the whole fixtures."""
        return self.fixtures.root

    def write_sums(self) -> None:
        """Those of the whole fixtures."""
        self.fixtures.write_sums()


def own_id(directory: Path) -> str:
    """The id of a checkpoint's model: the folder's name in the letters of an id, `-full` at its end."""
    name = re.sub(r"[^a-z0-9]+", "-", directory.resolve().name.lower()).strip("-")
    return name if name.endswith(("-full", "-slice")) else f"{name}-full"


def own_config(directory: Path) -> dict[str, Any]:
    """The config.json of a checkpoint of the user's own; FixtureError where the folder has none."""
    if not (directory / "config.json").is_file():
        cure = "name the folder that the checkpoint's config.json and safetensors are in"
        raise FixtureError(directory, got="no config.json in it", expected="the folder of a checkpoint", cure=cure)
    return checkpoint.read_config(directory)


class OwnGoldens(FullSize):
    """The folder of goldens that were made of a checkpoint, which is the model's directory."""

    def __init__(self, fixtures: Fixtures, root: Path, directory: Path) -> None:
        """FixtureError where the folder has no goldens of this model, or they were made of another configuration."""
        self.directory, self._model = directory, own_id(directory)
        self.options = f" --checkpoint {shlex.quote(str(directory))} --goldens {shlex.quote(str(root))}"
        cure = f"make them: gemma4-conformance export{self.options}"
        if not (root / "models" / self._model).is_dir():
            raise FixtureError(root, got=f"no goldens of {self._model}", expected="some", cure=cure)
        super().__init__(fixtures, directory.parent, root)
        made_of = checkpoint.read_config(self.card_dir(self._model))
        if own_config(directory) != made_of:
            expected = f"the configuration that the goldens in {root} were made of"
            raise FixtureError(directory / "config.json", got="another", expected=expected, cure=cure)

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Those of this model."""
        return tuple(case_id for case_id in super().case_ids if self.case(case_id).model == self._model)

    def model_dir(self, model_id: str) -> Path:  # noqa: ARG002 (there is one)
        """The checkpoint."""
        return self.directory

    @property
    def sums_root(self) -> Path:
        """This folder."""
        return self.root

    def write_sums(self) -> None:
        """Of this folder."""
        Fixtures.write_sums(self)
