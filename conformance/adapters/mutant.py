"""The oracle with one known mistake in it, as a port under test."""

from __future__ import annotations

import dataclasses
import difflib

import numpy as np

from conformance.adapters.base import Array, Hello, Request
from conformance.adapters.oracle import OracleAdapter
from conformance.adapters.registry import BadOption
from reference.mutants.mutant import Mutant


def known_mistake(where: str, mutant_id: str) -> Mutant:
    """The known mistake with this id; if there is none, BadOption with the nearest ids."""
    from reference.mutants import MUTANTS

    if mutant_id not in MUTANTS:
        near = difflib.get_close_matches(mutant_id, MUTANTS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `gemma4-conformance bugs`"
        raise BadOption(f"{where}: got {mutant_id!r}, expected the id of a known mistake; {hint}")
    return MUTANTS[mutant_id]


class MutantAdapter:
    """A mutant in the arithmetic of any profile, its products summed in `order`."""

    def __init__(self, mutant: Mutant, order: str = "blas") -> None:
        self.mutant = mutant
        self._oracle = OracleAdapter(order, oracle=mutant.oracle)

    def hello(self) -> Hello:
        """The oracle's hello, under the mutant's name."""
        return dataclasses.replace(self._oracle.hello(), name=f"{self._oracle.hello().name}, {self.mutant.id}")

    def run(self, request: Request) -> dict[str, Array]:
        """The mutant's taps; the mutant also loads the model, because some mistakes are mistakes of loading."""
        with np.errstate(all="ignore"):
            return self._oracle.run(request)
