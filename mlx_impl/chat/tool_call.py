"""One tool call as the model writes it: `call:NAME{key:value,...}`.

A value is a string `<|"|>...<|"|>` with anything inside but `<|"|>`, a JSON number, `true`, `false`, `null`, an object
`{key:value,...}` or a list `[value,...]`. Keys are bare, or strings as in declarations. White space between these parts
is skipped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from mlx_impl.chat.prompt.values import QUOTE
from mlx_impl.errors import MlxImplError, problem, shown

DEEPEST = 100
"""How deep values may nest, as in prompts; an argument that is neither an object nor a list has depth 0."""
_CURE = "show the model its mistake, or ask again"
_NAME = re.compile(r"[^\s{}<]+")
_KEY = re.compile(r"[^:,{}\[\]<\"]+")
_SPACES = " \t\r\n"
_SPACE = re.compile(f"[{_SPACES}]*")
_SCALAR = re.compile(r"[^,{}\[\]<\s]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a function that the model asks for."""

    name: str
    arguments: dict[str, Any] = field(hash=False)


def parse_tool_call(text: str, *, offset: int = 0) -> ToolCall:
    """The tool call that is written in the text between `<|tool_call>` and `<tool_call|>`.

    Raises MlxImplError, naming the first wrong character; `offset` is the place in the answer where `text` begins.
    """
    return _Reader(text, offset).call()


class _Reader:
    """A position in the text, which every method moves to the end of what it has read."""

    def __init__(self, text: str, offset: int) -> None:
        self._text = text
        self._offset = offset
        self._at = 0

    def call(self) -> ToolCall:
        self._space()
        if not self._text.startswith("call:", self._at):
            raise self._wrong("call:NAME{...}")
        self._at += len("call:")
        name = self._match(_NAME, "the name of a function")
        if not self._next_is("{"):
            raise self._wrong("{ after the name")
        arguments = self._object(-1)  # so that an argument's own depth is 0
        self._space()
        if self._at < len(self._text):
            raise self._wrong("the end of the call")
        return ToolCall(name=name, arguments=arguments)

    def _value(self, depth: int) -> Any:
        self._space()
        if self._text.startswith(QUOTE, self._at):
            return self._string()
        if self._next_is("{"):
            return self._object(depth)
        if self._next_is("["):
            return self._list(depth)
        return self._scalar()

    def _object(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        self._open(depth)
        while not self._closes("}", first=not items):
            start = self._at
            key = self._key()
            if key in items:
                self._at = start
                raise self._wrong(f"the key {shown(key)} once")
            if not self._next_is(":"):
                raise self._wrong(": after a key")
            self._at += 1
            items[key] = self._value(depth + 1)
        return items

    def _list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self._open(depth)
        while not self._closes("]", first=not items):
            items.append(self._value(depth + 1))
        return items

    def _open(self, depth: int) -> None:
        if depth > DEEPEST:
            raise self._wrong(f"values that nest at most {DEEPEST} deep")
        self._at += 1

    def _closes(self, bracket: str, *, first: bool) -> bool:
        """Whether the bracket is next; it is read, or else the comma before the next item."""
        self._space()
        if self._next_is(bracket):
            self._at += 1
            return True
        if not first:
            if not self._next_is(","):
                raise self._wrong(f", or {bracket}")
            self._at += 1
            self._space()
        return False

    def _key(self) -> str:
        if self._text.startswith(QUOTE, self._at):
            key = self._string()
            self._space()
            return key
        return self._match(_KEY, "a key").rstrip(_SPACES)

    def _string(self) -> str:
        start = self._at + len(QUOTE)
        end = self._text.find(QUOTE, start)
        if end < 0:
            raise self._wrong(f"a string that ends with {QUOTE}")
        self._at = end + len(QUOTE)
        return self._text[start:end]

    def _scalar(self) -> Any:
        start = self._at
        word = self._match(_SCALAR, "a value")
        if word in _WORDS:
            return _WORDS[word]
        value = _number(word)
        if value is None:
            self._at = start
            raise self._wrong(f"a number, true, false, null or a string between {QUOTE}")
        return value

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._wrong(what)
        self._at = match.end()
        return match[0]

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _next_is(self, character: str) -> bool:
        return self._text.startswith(character, self._at)

    def _wrong(self, expected: str) -> MlxImplError:
        rest = self._text[self._at : self._at + 40]
        got = shown(rest) if rest else "the end of the call"
        return problem(f"tool call, character {self._offset + self._at}", got=got, expected=expected, cure=_CURE)


def _number(word: str) -> int | float | None:
    """A JSON number as an int or a finite float; None for anything else."""
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    try:
        value = float(word) if match[1] or match[2] else int(word)
    except ValueError:  # Python does not read ints of many thousand digits
        return None
    return None if isinstance(value, float) and math.isinf(value) else value
