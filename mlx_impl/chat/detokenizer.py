"""The text of an answer, decoded while its tokens arrive."""

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
    """Gives text as soon as it is certain; the joined texts are `tokenizer.decode(ids)` of all ids.

    A token is its text with `▁` for a space, or one byte of UTF-8 (`<0xE2>`). Adjacent bytes are decoded as one run: if
    a part of the run is not UTF-8, *every* byte of the run becomes U+FFFD, also those of complete characters. So a run
    that may still be valid is held until a token of text ends it. As soon as it is invalid, its bytes are certain.
    """

    __slots__ = ("_broken", "_held", "_pieces", "_run", "_skipped", "_tokenizer", "_utf8")

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = False) -> None:
        """Raise MlxImplError for a tokenizer whose decoder differs from Gemma 4's."""
        if tokenizer.decoder != _DECODER:
            got, expected = shown(tokenizer.decoder), "Replace ▁, ByteFallback, Fuse"
            raise problem(f"{tokenizer.path}: decoder", got=got, expected=expected, cure="decode the ids as a whole")
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._pieces: dict[int, str | int] = {}  # id -> the byte or the text of its token, for ids seen so far
        self._begin_run()

    def add(self, token_id: int) -> str:
        """Take a token; the text that it makes certain. Raises MlxImplError for an unknown id."""
        number, piece = token_id, self._pieces.get(token_id) if type(token_id) is int else None  # True is equal to 1
        if piece is None:
            piece = _piece(self._tokenizer.token(token_id))
            number = operator.index(token_id)  # an element of an array is no key of a dict
            self._pieces[number] = piece
        if number in self._skipped:
            return ""  # a skipped token does not end a run of bytes
        if isinstance(piece, int):
            return self._add_byte(piece)
        return self._end_run() + piece

    def finish(self) -> str:
        """End the text; what was held back until now. The next token begins another text."""
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
        elif self._utf8.getstate()[0]:  # a character that was never completed
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
