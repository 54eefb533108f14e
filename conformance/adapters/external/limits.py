"""How long a port may take for an answer, and how much memory it may hold meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import psutil

from conformance.adapters.base import PortFault

TIMEOUT = 60.0
_GIB = 2**30
_SHARE = 0.8  # of the machine's memory
_UNWATCHED, _PAUSE = 0.05, 0.1  # seconds; the memory is not checked for answers that come at once
_T = TypeVar("_T")


def _most_of_the_machine() -> float:
    return round(_SHARE * psutil.virtual_memory().total / _GIB, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The time and memory that a port and its child processes may use for one answer."""

    seconds: float = TIMEOUT
    gib: float = field(default_factory=_most_of_the_machine)

    def keep(self, pid: int, wait: Callable[[float], _T], late: type[Exception]) -> _T:
        """The result of `wait(seconds)`, which is called again while it raises `late` and time is left.

        Raises `late` when the time is over, and PortFault if the process `pid` uses too much memory.
        """
        end = time.monotonic() + self.seconds
        pause = _UNWATCHED
        while True:
            left = end - time.monotonic()
            try:
                return wait(max(0.0, min(pause, left)))
            except late:
                if left <= pause:
                    raise
            if private_memory(pid) > self.gib * _GIB:
                raise PortFault(f"the port uses more than {self.gib:g} GiB of memory")
            pause = _PAUSE


def family(pid: int) -> list[psutil.Process]:
    """A process and all of its descendants; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def private_memory(pid: int) -> int:
    """Bytes of memory of a process and its descendants, without mapped files where the system can tell them apart."""
    held = 0
    for process in family(pid):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            memory = process.memory_info()
            held += memory.rss - getattr(memory, "shared", 0)
    return held
