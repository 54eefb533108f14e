"""The oracle as a whole: the classes that make its answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reference.config import TextConfig
from reference.loading import Loader
from reference.oracle.arithmetic import Arithmetic
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """The four classes that make an answer from a checkpoint's directory.

    A known mistake is a subclass of one of them: an `Oracle` with it is the whole oracle with that mistake, and lives
    beside the right one.
    """

    ops: type[Ops] = Ops
    decoder: type[Decoder] = Decoder
    config: type[TextConfig] = TextConfig
    loader: type[Loader] = Loader

    def load(self, directory: Path, ar: Arithmetic) -> Decoder:
        """The decoder of an ordinary checkpoint; ValueError or FixtureError for one that cannot be read."""
        config, weights = self.loader(self.config).load(directory)
        return self.decoder(config, weights, ar, self.ops)


ORACLE = Oracle()
"""The correct oracle."""
