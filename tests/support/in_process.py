"""Implementations of Python that bring down the process that asks them."""

from __future__ import annotations

import os
import signal

from conformance.adapters.base import Array, Hello, Request, Skip


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
