"""`Weights`: where the checkpoints of models lie that ship without one."""

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
        """The directory of a model's checkpoint, be it there or not."""
        return self.root if self.is_own else self.root / model_id

    def check(self, model_id: str) -> None:
        """FixtureError unless the checkpoint is there: whole files alone bear their names."""
        config = self.folder(model_id) / "config.json"
        if not config.is_file():
            cure = f"write them: gemma4-conformance materialize {model_id}"
            raise FixtureError(config, got="no such file", expected=f"the weights of {model_id}", cure=cure)
