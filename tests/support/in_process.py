"""Implementations of Python that bring down the process that asks them, or claim a profile of their own."""

from __future__ import annotations

import dataclasses
import os
import signal

from conformance.adapters.base import Hello, Request, Skip
from conformance.adapters.pure_python import PurePythonAdapter
from gemma4_contract.tensors import Array


class Dying:
    """Skips what it is asked, and dies at one question."""

    def hello(self) -> Hello:
        return Hello(
            name="dying",
            version="1",
            language="Python",
            family="other",
            profiles=("f32",),
            kinds=("rms_norm",),
            device="cpu",
        )

    def run(self, request: Request) -> dict[str, Array]:
        if request.case.endswith("/large"):
            self.die()
        raise Skip("not yet")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Leaving(Dying):
    """Ends the process of its own will."""

    def die(self) -> None:
        raise SystemExit(7)


class Doubles(PurePythonAdapter):
    """Python's floats, which claim the profile `doubles` instead of f64."""

    def hello(self) -> Hello:
        return dataclasses.replace(super().hello(), profiles=("doubles",))


class Singles(Doubles):
    """The same, rounded to float32."""

    def run(self, request: Request) -> dict[str, Array]:
        return {name: value.astype("float32") for name, value in super().run(request).items()}
