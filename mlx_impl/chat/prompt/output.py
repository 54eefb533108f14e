"""The prompt as it grows: what the format writes and what the conversation says, kept apart until the end."""

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
"""The 24 added tokens of tokenizer.json: wherever they stand in a text, they become one id each."""

ZERO_WIDTH_SPACE = "\u200b"
_CONTROL = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))


class Output:
    """Pieces of a prompt in order."""

    def __init__(self) -> None:
        self._pieces: list[tuple[str, bool]] = []

    def mark(self, text: str) -> None:
        """Append what the format writes: control tokens and punctuation."""
        self._pieces.append((text, False))

    def say(self, text: str) -> None:
        """Append what the conversation says."""
        self._pieces.append((text, True))

    def text(self, on_control_tokens: OnControlTokens) -> str:
        """The whole prompt; MlxImplError under `refuse` when the conversation says a control token.

        Neighbouring pieces are looked at as one: `<|tu` and `rn>` from two parts make a token.
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
    """Every control token with a zero-width space behind its first character: it reads the same and is none."""
    return _CONTROL.sub(lambda match: f"{match[0][0]}{ZERO_WIDTH_SPACE}{match[0][1:]}", text)


def _refused(text: str) -> str:
    match = _CONTROL.search(text)
    if match:
        around = text[max(0, match.start() - 20) : match.end() + 20]
        raise problem(
            "the conversation",
            got=f"control token {match[0]} in {shown(around)}",
            expected="text without control tokens",
            cure="take it out, or choose on_control_tokens='escape'",
        )
    return text
