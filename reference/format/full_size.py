"""`FullSize`: the goldens of models at full size, `fixtures/full`, whose weights are formulas and ship nowhere."""

from __future__ import annotations

import functools
from pathlib import Path

from reference.format.errors import FixtureError
from reference.format.models import Policy
from reference.format.store import Fixtures

FOLDER = "full"


class FullSize(Fixtures):
    """The folder `full` of the fixtures; `checkpoints` is where materialised weights lie, one folder for each model."""

    def __init__(self, fixtures: Fixtures, checkpoints: Path) -> None:
        super().__init__(fixtures.root / FOLDER)
        self.fixtures = fixtures
        self.checkpoints = checkpoints

    def model_dir(self, model_id: str) -> Path:
        """Where the model's weights are, once `gemma4-conformance materialize` has written them."""
        return self.checkpoints / model_id

    def check_model(self, model_id: str) -> None:
        """FixtureError unless the weights are there: whole files alone bear their names."""
        config = self.model_dir(model_id) / "config.json"
        if not config.is_file():
            cure = f"write them: gemma4-conformance materialize {model_id}"
            raise FixtureError(config, got="no such file", expected=f"the weights of {model_id}", cure=cure)

    @functools.cached_property
    def policy(self) -> Policy:
        """That of the other fixtures."""
        return self.fixtures.policy

    def faults(self) -> list[FixtureError]:
        """What is wrong with cases, cards and floors; the sums are those of the whole fixtures."""
        return [*self._case_faults(), *self._document_faults()]
