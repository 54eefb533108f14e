"""The parts of a model's answer: its thinking, its content and its tool calls, from a whole text or from a stream.

    answer   := (text | thinking | call)* stop?
    thinking := <|channel>thought\\n text \\n<channel|>
    call     := <|tool_call>call:NAME{key:value,...}<tool_call|>
    stop     := <turn|> | <eos> | <|tool_response>

The text is what the ids decode to with special tokens kept. In this text a control token looks the same whether the
model wrote its id or spelled it out. It counts as a control token everywhere, except in a string of a tool call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mlx_impl.chat.prompt.values import QUOTE
from mlx_impl.chat.tool_call import ToolCall, parse_tool_call
from mlx_impl.errors import problem, shown

STOPS = ("<turn|>", "<eos>", "<|tool_response>")
_State = Literal["content", "header", "thinking", "call", "string"]
_ENDS: dict[_State, tuple[str, ...]] = {
    "content": ("<|channel>", "<|tool_call>", "<channel|>", "<tool_call|>", *STOPS),
    "header": ("\n", "<channel|>", *STOPS),
    "thinking": ("\n<channel|>", "<channel|>", *STOPS),
    "call": (QUOTE, "<tool_call|>", *STOPS),
    "string": (QUOTE,),
}
"""The strings that end a run of text in each state. Only their first character is one of `\\n<`."""
_END = {state: re.compile("|".join(map(re.escape, ends))) for state, ends in _ENDS.items()}
_LONGEST = max(len(end) for ends in _ENDS.values() for end in ends)
_CURE = "show the model its mistake, or ask again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The parts of an answer. `complete` is False if it stops within thinking, or within a call, which is left out."""

    thinking: str | None
    content: str
    tool_calls: tuple[ToolCall, ...]
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """New text of an answer, and the part that it belongs to."""

    part: Literal["thinking", "content"]
    text: str


def parse_answer(text: str, *, thinking_open: bool = False) -> Answer:
    """The parts of an answer: content unchanged, thoughts joined by a newline, calls in order, stop tokens dropped.

    `thinking_open` says that the prompt ended within a thought (`<|channel>thought\\n`), as it does after a tool's
    response with thinking on. Raises MlxImplError, naming the character, if a call is malformed, a channel has another
    name than thought, something is closed that was not open, or text follows a stop token.
    """
    stream = AnswerStream(thinking_open=thinking_open)
    stream.feed(text)
    stream.finish()
    return stream.answer


class AnswerStream:
    """`parse_answer` for text that arrives in pieces, cut anywhere: the joined parts are those of the whole text."""

    def __init__(self, *, thinking_open: bool = False) -> None:
        self._state: _State = "thinking" if thinking_open else "content"
        self._over = ""  # what ended the answer
        self._held = ""  # the end of the text so far, which may be the beginning of a control token
        self._at = 0  # the place in the answer where `_held` begins
        self._inner: list[str] = []  # the header or the call that is open
        self._inner_at = 0
        self._thinking: list[str] | None = [] if thinking_open else None
        self._content: list[str] = []
        self._calls: list[ToolCall] = []

    @property
    def answer(self) -> Answer:
        """The parts that are certain so far."""
        return Answer(
            thinking=None if self._thinking is None else "".join(self._thinking),
            content="".join(self._content),
            tool_calls=tuple(self._calls),
            complete=self._state == "content",
        )

    def feed(self, text: str) -> list[Piece | ToolCall]:
        """Take more text; what it makes certain. Raises MlxImplError as `parse_answer` does."""
        if not isinstance(text, str):
            raise problem("answer", got=shown(text), expected="a string", cure="decode the ids first")
        if self._over and text:
            finished = self._over == "finish()"
            cure = "use another AnswerStream" if finished else "stop generating at every id of stop_ids()"
            got = f"{shown(text[:40])} after {self._over}"
            raise problem(f"answer, character {self._at}", got=got, expected="the end", cure=cure)
        new: list[Piece | ToolCall] = []
        text, base, start = self._held + text, self._at, 0
        while not self._over and (end := _END[self._state].search(text, start)):
            self._take(text[start : end.start()], new)
            start = end.end()
            self._at = base + start
            self._pass(end[0], self._at - len(end[0]), new)
        if self._over and start < len(text):
            self._held = ""
            return [*new, *self.feed(text[start:])]  # raises
        held = _may_begin_an_end(text, start, self._state)
        self._take(text[start:held], new)
        self._held, self._at = text[held:], base + held
        return new

    def finish(self) -> list[Piece | ToolCall]:
        """End the text; what was held back until now."""
        new: list[Piece | ToolCall] = []
        if not (self._state == "thinking" and self._held == "\n"):  # it may belong to the thought or to the format
            self._take(self._held, new)
        if self._state == "header":
            self._check_header(unfinished=True)
        self._held, self._over = "", self._over or "finish()"
        return new

    def _take(self, text: str, new: list[Piece | ToolCall]) -> None:
        """Add text without control tokens to the part that is open."""
        if not text:
            return
        if self._state == "content":
            self._content.append(text)
            new.append(Piece(part="content", text=text))
        elif self._state == "thinking" and self._thinking is not None:
            self._thinking.append(text)
            new.append(Piece(part="thinking", text=text))
        else:
            self._inner.append(text)

    def _pass(self, end: str, at: int, new: list[Piece | ToolCall]) -> None:
        """Change to the state after `end`, which begins at character `at`."""
        if end in STOPS:
            self._over = end
        elif end == QUOTE:
            self._inner.append(end)
            self._state = "call" if self._state == "string" else "string"
        elif end in ("<|channel>", "<|tool_call>"):
            self._state = "header" if end == "<|channel>" else "call"
            self._inner, self._inner_at = [], self._at
        elif self._state == "content":
            cure = "pass thinking_open=True if the prompt ended within a thought" if end == "<channel|>" else _CURE
            raise problem(f"answer, character {at}", got=f"{end}, which closes nothing", expected="text", cure=cure)
        elif self._state == "call":
            call = parse_tool_call("".join(self._inner), offset=self._inner_at)
            self._calls.append(call)
            new.append(call)
            self._state = "content"
        else:
            if self._state == "header":
                self._check_header()
                self._state = "thinking"
                self._begin_thought(new)
            if end != "\n":
                self._state = "content"

    def _begin_thought(self, new: list[Piece | ToolCall]) -> None:
        if self._thinking is None:
            self._thinking = []
        else:
            self._take("\n", new)

    def _check_header(self, *, unfinished: bool = False) -> None:
        name = "".join(self._inner)
        if name != "thought" and not (unfinished and "thought".startswith(name)):
            where = f"answer, character {self._inner_at}"
            raise problem(where, got=f"the channel {shown(name)}", expected="thought", cure=_CURE)


def _may_begin_an_end(text: str, start: int, state: _State) -> int:
    """The index from which `text` may be the beginning of an end; its length if there is none."""
    for held in range(max(start, len(text) - _LONGEST + 1), len(text)):
        if text[held] in "\n<" and any(end.startswith(text[held:]) for end in _ENDS[state]):
            return held
    return len(text)
