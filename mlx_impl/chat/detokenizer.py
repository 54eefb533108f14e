"""The text of an answer while its tokens arrive."""

from __future__ import annotations

import codecs
import operator
import re

from mlx_impl.chat.tokenizer import Tokenizer
from mlx_impl.errors import problem, shown

_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>", re.ASCII)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class StreamingDetokenizer:
    """Gives text as soon as it is certain: all that it gives, joined, is `tokenizer.decode(ids)` of all ids.

    A token is its text with `▁` for a space, or one byte of UTF-8 (`<0xE2>`). Bytes next to each other are decoded as
    one run: where any of it is not UTF-8, *every* byte of the run becomes U+FFFD, those of whole characters too. So a
    run that may still be good is held until a token of text ends it; once it is bad, its bytes are certain.
    """

    __slots__ = ("_broken", "_held", "_pieces", "_run", "_skipped", "_tokenizer", "_utf8")

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = False) -> None:
        """Raises MlxImplError for a tokenizer whose decoder works in another way than Gemma 4's."""
        if tokenizer.decoder != _DECODER:
            got, expected = shown(tokenizer.decoder), "Replace ▁, ByteFallback, Fuse"
            raise problem(f"{tokenizer.path}: decoder", got=got, expected=expected, cure="decode the ids as a whole")
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._pieces: dict[int, str | int] = {}  # what a token stands for, a byte or text, as far as it was asked
        self._begin_run()

    def add(self, token_id: int) -> str:
        """The text that is certain with this token and was not before. Raises MlxImplError for an unknown id."""
        number, piece = token_id, self._pieces.get(token_id) if type(token_id) is int else None  # True is equal to 1
        if piece is None:
            piece = _piece(self._tokenizer.token(token_id))
            number = operator.index(token_id)  # of an array's element, which is no key
            self._pieces[number] = piece
        if number in self._skipped:
            return ""  # as if it were not there, so that a run of bytes goes on behind it
        if isinstance(piece, int):
            return self._add_byte(piece)
        return self._end_run() + piece

    def finish(self) -> str:
        """What was held; the next token begins another text."""
        return self._end_run()

    def _begin_run(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._held: list[str] = []
        self._run = 0
        self._broken = False

    def _add_byte(self, byte: int) -> str:
        self._run += 1
        if self._broken:
            return _REPLACEMENT
        try:
            self._held.append(self._utf8.decode(bytes([byte])))
        except UnicodeDecodeError:
            self._broken = True
            return _REPLACEMENT * self._run
        return ""

    def _end_run(self) -> str:
        if not self._run:
            return ""
        if self._broken:
            text = ""
        elif self._utf8.getstate()[0]:  # a character that never became whole
            text = _REPLACEMENT * self._run
        else:
            text = "".join(self._held)
        self._begin_run()
        return text


def _piece(token: str) -> str | int:
    """The byte or the text that a token stands for."""
    text = token.replace("▁", " ")
    byte = _BYTE_TOKEN.fullmatch(text)
    return int(byte[1], 16) if byte else text
