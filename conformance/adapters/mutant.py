"""The oracle with one known mistake in it, as a port under test."""

from __future__ import annotations

import dataclasses

import numpy as np

from conformance.adapters.base import Array, Hello, Request
from conformance.adapters.oracle import OracleAdapter
from reference.mutants.mutant import Mutant


class MutantAdapter:
    """A mutant in the arithmetic of any profile, its products summed in `order`."""

    def __init__(self, mutant: Mutant, order: str = "blas") -> None:
        self.mutant = mutant
        self._oracle = OracleAdapter(order, oracle=mutant.oracle)

    def hello(self) -> Hello:
        """Who the oracle is, under the mutant's name."""
        return dataclasses.replace(self._oracle.hello(), name=f"{self._oracle.hello().name}, {self.mutant.id}")

    def run(self, request: Request) -> dict[str, Array]:
        """The mutant's taps; models are loaded by the mutant too, for some mistakes are mistakes of loading."""
        with np.errstate(all="ignore"):
            return self._oracle.run(request)
