"""The error of a file that cannot be fetched."""

from __future__ import annotations


class FetchError(Exception):
    """A published file cannot be fetched; the message is one line with the cure."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))
