"""Plays times that were measured interleaved, A B A B, back to pytest-benchmark, one contender after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class Clock:
    """A timer that only the playback moves."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds."""
        return self._now

    def playing(self, durations: Sequence[float]) -> Callable[[], None]:
        """A function whose calls take these durations, one after the other."""
        coming: Iterator[float] = iter(durations)

        def play() -> None:
            self._now += next(coming)

        return play


CLOCK = Clock()
