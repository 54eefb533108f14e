"""Where the checkpoints lie of models whose weights are no part of the fixtures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gemma4_contract.errors import FixtureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A folder with one checkpoint for each model, or a checkpoint of the user's own."""

    root: Path
    is_own: bool = False
    """Whether `root` is the checkpoint itself."""

    def folder(self, model_id: str) -> Path:
        """The folder of a model's checkpoint, which may not exist yet."""
        return self.root if self.is_own else self.root / model_id

    def check(self, model_id: str) -> None:
        """Raise FixtureError unless config.json is there: it is written last, so the checkpoint is then complete."""
        config = self.folder(model_id) / "config.json"
        if not config.is_file():
            cure = f"write them: gemma4-conformance materialize {model_id}"
            raise FixtureError(config, got="no such file", expected=f"the weights of {model_id}", cure=cure)
