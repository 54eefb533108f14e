"""Why a published file cannot be had here."""

from __future__ import annotations


class FetchError(Exception):
    """A published file cannot be had here; the message is one line with the cure."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))
