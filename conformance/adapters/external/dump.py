"""Answers computed where no adapter can run, such as on a phone: one file whose tensors are named `<case id>/<tap>`."""

from __future__ import annotations

from pathlib import Path

from conformance.adapters.base import Array, Hello, Request, Skip
from gemma4_contract import tensors


class DumpAdapter:
    """Reads the answer to one case at a time, because the file may be larger than memory."""

    def __init__(self, path: Path) -> None:
        """FixtureError when the file is missing or broken."""
        self._name = path.name
        self._stored = tensors.read_lazily(path)

    def hello(self) -> Hello:
        """The name of the file; nothing else is known."""
        return Hello.offering_everything(self._name, "elsewhere")

    def run(self, request: Request) -> dict[str, Array]:
        """The wanted taps that the file has; Skip when it has none of this case."""
        stored = {tap: self._stored.get(f"{request.case}/{tap}") for tap in request.want}
        answer = {tap: tensor.whole() for tap, tensor in stored.items() if tensor is not None}
        if not answer:
            raise Skip("not in the file")
        return answer
