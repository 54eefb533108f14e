"""The output of the command: the answer on stdout while it is generated, or JSON; everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlx_impl.chat.answer import AnswerStream, Piece
from mlx_impl.chat.detokenizer import StreamingDetokenizer
from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.chat.tool_call import ToolCall
from mlx_impl.cli.session import Figures
from mlx_impl.errors import MlxImplError
from mlx_impl.generation.generate import Generated
from mlx_impl.generation.generate import Progress as Report

_CALL = "<|tool_call>"
_PARTS = re.compile(r"(?=<)|(?<=>)")  # before and after a possible control token


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The text that a token makes certain; without a token, the text that was held back until the end."""

    token: Generated | None
    text: str
    """The text with control tokens; `pieces` have none."""
    pieces: tuple[Piece, ...]


class Speech:
    """The text of one answer while its tokens arrive, separated into thoughts and content.

    Small or damaged models break the format. From the first breach on all text is shown unchanged, as content.
    """

    def __init__(self, tokenizer: Tokenizer, *, raw: bool) -> None:
        """Raise MlxImplError for a tokenizer whose text cannot be streamed."""
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._stream = None if raw else AnswerStream()
        self._unshown = ""  # text that was not shown yet, such as half a call
        self.breach: str | None = None
        self.ids: list[int] = []
        self.text = ""
        self.parts: dict[str, str | None] = {"thinking": None, "content": ""}
        self.tool_calls: list[ToolCall] = []

    def add(self, token: Generated) -> Said:
        """Take a token; the text that it makes certain. A stop token is not part of the text."""
        self.ids.append(token.id)
        text = "" if token.finish == "stop" else self._detokenizer.add(token.id)
        return Said(token=token, text=text, pieces=self._pieces(text, last=False))

    def finish(self) -> Said:
        """End the answer; the text that was held back until now."""
        text = self._detokenizer.finish()
        return Said(token=None, text=text, pieces=self._pieces(text, last=True))

    def _pieces(self, text: str, *, last: bool) -> tuple[Piece, ...]:
        self.text += text
        pieces: list[Piece] = []
        for part in _PARTS.split(text):
            pieces += self._pieces_of_part(part, last=False)
        if last:
            pieces += self._pieces_of_part("", last=True)
        for piece in pieces:
            self.parts[piece.part] = (self.parts[piece.part] or "") + piece.text
        return tuple(pieces)

    def _pieces_of_part(self, text: str, *, last: bool) -> list[Piece]:
        """The pieces of a text that is one control token or holds none: all of it is shown now, or nothing."""
        self._unshown += text
        pieces: list[Piece] = []
        if self._stream is not None:
            try:
                for item in [*self._stream.feed(text), *(self._stream.finish() if last else [])]:
                    if isinstance(item, ToolCall):
                        self.tool_calls.append(item)
                        item = Piece(part="content", text=self._unshown[self._unshown.index(_CALL) :])
                    pieces.append(item)
            except MlxImplError as error:
                self.breach = str(error)
                self._stream = None
        if self._stream is None and self._unshown:
            pieces.append(Piece(part="content", text=self._unshown))
        if pieces:
            self._unshown = ""
        return pieces


class Show(Protocol):
    """How an answer is shown."""

    def loaded(self, what: str, seconds: float) -> None:
        """Show that the checkpoint is loaded."""

    def progress(self) -> AbstractContextManager[Report]:
        """A context that shows the progress of the prompt; it gives the function to report to."""

    def say(self, said: Said) -> None:
        """Show more text."""

    def end(self, speech: Speech, figures: Figures, seed: int | None) -> None:
        """Show the end of the answer."""


class TextShow:
    """Shows text on stdout. On a terminal thoughts are dim; otherwise they go to stderr, and only content to stdout."""

    def __init__(self) -> None:
        self._out, self._err = Console(highlight=False), Console(stderr=True, highlight=False)
        self._part = ""
        self._at_line_start = True

    def loaded(self, what: str, seconds: float) -> None:
        self._note(f"{what}: loaded in {seconds:.1f} s")

    @contextmanager
    def progress(self) -> Iterator[Report]:
        columns = (TextColumn("prompt"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._err, disable=not self._err.is_terminal, transient=True) as bar:
            task = bar.add_task("")
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def say(self, said: Said) -> None:
        for piece in said.pieces:
            if piece.part != self._part and self._part:
                self._write("\n" if self._at_line_start else "\n\n", self._part)
            self._part = piece.part
            self._write(piece.text, piece.part)

    def end(self, speech: Speech, figures: Figures, seed: int | None) -> None:
        if self._part and not self._at_line_start:
            self._write("\n", self._part)
        self._part, self._at_line_start = "", True
        if speech.breach is not None:
            self._note(f"the answer breaks the format; from there on it is shown unchanged: {speech.breach}")
        for line in summary(figures, seed):
            self._note(line)

    def _write(self, text: str, part: str) -> None:
        aside = part == "thinking"
        console = self._err if aside and not self._out.is_terminal else self._out
        console.out(text, end="", highlight=False, style="dim" if aside else None)
        console.file.flush()
        self._at_line_start = text.endswith("\n")

    def _note(self, line: str) -> None:
        self._err.print(line, markup=False, emoji=False, soft_wrap=True)


class JsonShow:
    """Writes an object for each token, then one for the answer, each on a line of stdout."""

    def loaded(self, what: str, seconds: float) -> None:
        self._load = {"model": what, "load_seconds": seconds}

    def progress(self) -> AbstractContextManager[Report]:
        return nullcontext(lambda *_: None)

    def say(self, said: Said) -> None:
        if said.token is not None:
            self._line({"id": said.token.id, "logprob": said.token.logprob, "text": said.text})

    def end(self, speech: Speech, figures: Figures, seed: int | None) -> None:
        calls = [{"name": call.name, "arguments": call.arguments} for call in speech.tool_calls]
        answer = {"ids": speech.ids, "text": speech.text, **speech.parts, "tool_calls": calls, "breach": speech.breach}
        rates = {"prompt_tokens_per_second": figures.prompt_rate, "tokens_per_second": figures.decode_rate}
        self._line({**answer, **asdict(figures), **rates, "seed": seed, **self._load})

    def _line(self, value: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()


def summary(figures: Figures, seed: int | None) -> list[str]:
    """The figures of an answer as lines of text."""
    reused = f" ({figures.reused_tokens} of them reused)" if figures.reused_tokens else ""
    ends = {"stop": "", "length": ", cut off at --max-tokens", "cancelled": ", interrupted"}
    drawn = "" if seed is None else f", seed {seed}"
    lines = [f"prompt: {figures.prompt_tokens} tokens{reused}"]
    if figures.generated_tokens:
        lines[0] += f", first token after {figures.first_token_seconds:.2f} s, {figures.prompt_rate:.1f} tokens/s"
    rate = f", {figures.decode_rate:.1f} tokens/s" if figures.generated_tokens > 1 else ""
    lines.append(f"answer: {figures.generated_tokens} tokens{rate}{ends[figures.finish]}{drawn}")
    lines.append(f"memory: {_size(figures.active_memory)} active, {_size(figures.peak_memory)} at its peak")
    return lines


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
