"""A port in another process: JSON Lines on its standard input and output, tensors in safetensors files."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from conformance.adapters.base import Array, Hello, PortFault, PromptRequest, Refused, Request, Skip
from conformance.adapters.external.exchange import read_answer, write_request
from conformance.adapters.external.limits import Limits
from conformance.adapters.external.lines import LineProcess
from gemma4_contract import protocol

_Answer = TypeVar("_Answer", bound=protocol.Line)


class ProcessAdapter:
    """Drives the adapter that a command starts; if it died or was killed, it is started again for the next question.

    Every fault of the port is a PortFault: one line that says what it did. Files are read from our own folder, and
    only under the name that was asked for.
    """

    def __init__(
        self, command: Sequence[str], limits: Limits | None = None, profiles: Collection[str] | None = None
    ) -> None:
        """PortFault if the command cannot be started or sends no valid hello.

        `profiles` are the profiles that a port may offer: None means those of the installed fixtures.
        """
        self._command = command
        self._context = {"profiles": profiles}
        self._limits = limits or Limits()
        self._folder = tempfile.TemporaryDirectory(prefix="gemma4-port-")
        self._process: LineProcess | None = None
        self._loaded: Path | None = None
        self._seq = 0
        atexit.register(self.close)  # a port that hangs must not outlive this process
        self._hello = self._say_hello()

    def hello(self) -> Hello:
        """The name and version of the port, and what it offers."""
        said = self._hello
        return Hello(
            name=said.implementation.name,
            version=said.implementation.version,
            language=said.implementation.language,
            family=said.family,
            profiles=tuple(said.profiles),
            kinds=tuple(said.kinds),
            device=said.device,
        )

    def run(self, request: Request) -> dict[str, Array]:
        """The taps that the port wrote."""
        if request.model_dir is not None:
            self._load(request.model_dir)
        self._seq += 1
        inputs, out = self._file("in"), self._file("out")
        try:
            answer = self._ask(write_request(request, self._seq, inputs, out), protocol.RunAnswer, self._seq)
            if answer.skipped is not None:
                raise Skip(answer.skipped)
            if answer.error is not None:
                raise PortFault(f"the port answered with an error: {answer.error}")
            return read_answer(out)
        finally:
            for path in (inputs, out):
                path.unlink(missing_ok=True)

    def prompt(self, request: PromptRequest) -> str:
        """The prompt that the port wrote."""
        self._seq += 1
        command = protocol.PromptCommand(
            seq=self._seq,
            messages=[dict(message) for message in request.messages],
            template=request.template,
            **request.settings(),
        )
        answer = self._ask(command, protocol.PromptAnswer, self._seq)
        if answer.skipped is not None:
            raise Skip(answer.skipped)
        if answer.refused is not None:
            raise Refused(answer.refused)
        if answer.text is None:
            raise PortFault(f"the port answered with an error: {answer.error}")
        return answer.text

    def encode(self, text: str, tokenizer_json: Path) -> list[int]:
        """The ids that the port gives for a text."""
        self._seq += 1
        command = protocol.Tokenize(seq=self._seq, text=text, tokenizer=str(tokenizer_json.resolve()))
        answer = self._ask(command, protocol.TokenizeAnswer, self._seq)
        if answer.skipped is not None:
            raise Skip(answer.skipped)
        if answer.ids is None:
            raise PortFault(f"the port answered with an error: {answer.error}")
        return answer.ids

    def close(self) -> None:
        """Ask the port to stop, and kill it if it does not."""
        if self._process is not None:
            self._process.stop(protocol.Stop().model_dump_json())
            self._process = None
        self._folder.cleanup()

    def _say_hello(self) -> protocol.HelloAnswer:
        self._process = LineProcess(self._command, Path(self._folder.name))
        return self._ask(protocol.Hello(), protocol.HelloAnswer, None)

    def _load(self, model_dir: Path) -> None:
        if self._loaded == model_dir:
            return
        self._loaded = None
        answer = self._ask(protocol.Load(model_dir=str(model_dir.resolve())), protocol.LoadAnswer, None)
        if answer.error is not None:
            raise PortFault(f"the port does not load {model_dir.name}: {answer.error}")
        self._loaded = model_dir

    def _ask(self, line: protocol.Line, answer: type[_Answer], seq: int | None) -> _Answer:
        """Send one line and read one; anything but an answer to it ends the process."""
        if self._process is None:
            self._say_hello()
        assert self._process is not None
        try:
            said = self._process.ask(line.model_dump_json(), self._limits)
            try:
                parsed = answer.model_validate_json(said, context=self._context)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise PortFault(
                    f"the port said {_shown(said)}: {first['msg']}{f' at {where}' if where else ''}"
                ) from None
            got = getattr(parsed, "seq", None)
            if got != seq:
                raise PortFault(f"the port answered out of turn: got seq {got}, expected {seq}")
        except PortFault:
            self._process.kill()
            self._process = self._loaded = None
            raise
        return parsed

    def _file(self, what: str) -> Path:
        return Path(self._folder.name) / f"{self._seq}-{what}.safetensors"


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
