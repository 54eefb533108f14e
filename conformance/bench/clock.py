"""Times that were taken interleaved, A B A B, told to pytest-benchmark one contender after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class Clock:
    """A timer that stands still but for what is played back."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds."""
        return self._now

    def playing(self, durations: Sequence[float]) -> Callable[[], None]:
        """What takes the first of these durations at its first call, and so on."""
        coming: Iterator[float] = iter(durations)

        def play() -> None:
            self._now += next(coming)

        return play


CLOCK = Clock()
