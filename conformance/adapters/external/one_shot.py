"""A port that is started anew for each question: `COMMAND REQUEST.json OUT.safetensors`, exit 0, 1, or 77 to skip."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from conformance.adapters.base import Array, Hello, PortFault, Request, Skip
from conformance.adapters.external.exchange import read_answer, write_request
from conformance.adapters.external.limits import Limits
from conformance.adapters.external.lines import death, kill_group, last_words

SKIPPED = 77


class OneShotAdapter:
    """Starts the command for every case; it sends no hello, so it is assumed to offer everything."""

    def __init__(self, command: Sequence[str], limits: Limits | None = None) -> None:
        self._command = tuple(command)
        self._limits = limits or Limits()

    def hello(self) -> Hello:
        """The command; nothing else is known."""
        return Hello.offering_everything(Path(self._command[0]).name, "unknown")

    def run(self, request: Request) -> dict[str, Array]:
        """The taps that the command wrote. Skip at exit 77, with its last words; PortFault at any other but 0."""
        with tempfile.TemporaryDirectory(prefix="gemma4-port-") as folder:
            inputs, out, asked = (Path(folder) / name for name in ("in.safetensors", "out.safetensors", "request.json"))
            line = write_request(request, 1, inputs, out)
            model = {"model_dir": str(request.model_dir.resolve()) if request.model_dir else None}
            asked.write_text(json.dumps(line.model_dump(mode="json") | model), encoding="utf-8")
            self._call(asked, out)
            return read_answer(out)

    def _call(self, asked: Path, out: Path) -> None:
        command = [*self._command, str(asked), str(out)]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise PortFault(f"the port cannot be started: {self._command[0]}: {error.strerror}") from None
        with process:
            try:
                said, errors = self._limits.keep(
                    process.pid, lambda seconds: process.communicate(timeout=seconds), subprocess.TimeoutExpired
                )
            except subprocess.TimeoutExpired:
                raise PortFault(f"the port hangs: no end within {self._limits.seconds:g} s") from None
            finally:
                if process.returncode is None:  # it is over its limits, or the user interrupts
                    kill_group(process)
        words = last_words(errors) or last_words(said)
        if process.returncode == SKIPPED:
            raise Skip(words or "exit 77")
        if process.returncode:
            raise death(process.returncode, words)
