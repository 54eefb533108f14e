"""The oracle as a port under test, in the arithmetic of any profile."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from conformance.adapters.base import Array, Hello, Request, Skip
from gemma4_contract import __version__
from gemma4_contract.subgraph import SUBGRAPH_KINDS, subgraph
from reference.oracle import answers
from reference.oracle.arithmetic import PROFILES, Arithmetic
from reference.oracle.decoder import Decoder
from reference.oracle.oracle import ORACLE, Oracle


class OracleAdapter:
    """NumPy in the profile's arithmetic: products are summed in `order`, and rounded as fused kernels do if `fused`.

    `oracle` is the correct oracle or one with a known mistake.
    """

    def __init__(
        self, order: str = "blas", *, fused: bool = False, reciprocal: bool = False, oracle: Oracle = ORACLE
    ) -> None:
        self.oracle = oracle
        self.order = order
        self.fused = fused
        self.reciprocal = reciprocal
        self._decoder = functools.lru_cache(maxsize=4)(self._load)

    def hello(self) -> Hello:
        """The name and version of the implementation, and what it offers."""
        return Hello(
            name=" ".join(["oracle", self.order, *("fused",) * self.fused, *("reciprocal",) * self.reciprocal]),
            version=f"{__version__} (numpy {np.__version__})",
            language="Python",
            family="numpy",
            profiles=tuple(PROFILES),
            kinds=("forward", *SUBGRAPH_KINDS, *answers.MODULE_KINDS),
            device="cpu",
        )

    def run(self, request: Request) -> dict[str, Array]:
        """The oracle's taps, in the dtype of the profile's arithmetic; float16 may overflow without a warning."""
        with np.errstate(over="ignore", invalid="ignore"):
            taps = self._taps(request, self._arithmetic(request.profile))
        return {name: value for name, value in taps.items() if name in request.want}

    def _taps(self, request: Request, ar: Arithmetic) -> dict[str, Array]:
        if request.model_dir is None:
            return answers.module(request.kind, request.params, request.inputs, ar, self.oracle)
        decoder = self._decoder(request.model_dir, request.profile)
        if request.kind == "forward":
            return answers.forward(decoder, request.inputs, request.plan.steps if request.plan else None, request.want)
        if request.kind in SUBGRAPH_KINDS:
            return answers.layer(decoder, subgraph(request.kind, request.params, request.inputs))
        raise Skip(f"no kind {request.kind}")

    def _arithmetic(self, profile: str) -> Arithmetic:
        return dataclasses.replace(PROFILES[profile], order=self.order, fused=self.fused, reciprocal=self.reciprocal)

    def _load(self, model_dir: Path, profile: str) -> Decoder:
        return self.oracle.load(model_dir, self._arithmetic(profile))
