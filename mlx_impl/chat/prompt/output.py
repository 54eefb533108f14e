"""The prompt while it is written: the text of the format and the text of the conversation are kept apart."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal

from mlx_impl.errors import problem, shown

OnControlTokens = Literal["keep", "escape", "refuse"]
POLICIES: tuple[OnControlTokens, ...] = ("keep", "escape", "refuse")

CONTROL_TOKENS = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    *("<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'),
    *("<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>"),
    *("<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>"),
)
"""The 24 added tokens of tokenizer.json, each of which becomes one id wherever it is in a text."""

ZERO_WIDTH_SPACE = "\u200b"
_CONTROL = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))


class Output:
    """The pieces of a prompt in order."""

    def __init__(self) -> None:
        self._pieces: list[tuple[str, bool]] = []

    def mark(self, text: str) -> None:
        """Append text of the format: control tokens and punctuation."""
        self._pieces.append((text, False))

    def say(self, text: str) -> None:
        """Append text of the conversation."""
        self._pieces.append((text, True))

    def text(self, on_control_tokens: OnControlTokens) -> str:
        """The whole prompt. With `refuse` raises MlxImplError if the conversation holds a control token.

        Adjacent pieces are searched as one text, because `<|tu` and `rn>` from two parts make a token.
        """
        if on_control_tokens == "keep":
            return "".join([text for text, _ in self._pieces])
        guard = _refused if on_control_tokens == "refuse" else _escaped
        whole = []
        for said, pieces in groupby(self._pieces, key=lambda piece: piece[1]):
            text = "".join([piece for piece, _ in pieces])
            whole.append(guard(text) if said else text)
        return "".join(whole)


def _escaped(text: str) -> str:
    """The text with a zero-width space after the first character of every control token, so that none remains."""
    return _CONTROL.sub(lambda match: f"{match[0][0]}{ZERO_WIDTH_SPACE}{match[0][1:]}", text)


def _refused(text: str) -> str:
    match = _CONTROL.search(text)
    if match:
        around = text[max(0, match.start() - 20) : match.end() + 20]
        raise problem(
            "the conversation",
            got=f"control token {match[0]} in {shown(around)}",
            expected="text without control tokens",
            cure="remove it, or choose on_control_tokens='escape'",
        )
    return text
