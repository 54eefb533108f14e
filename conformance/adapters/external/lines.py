"""A process that answers each line with one line, within its limits of time and memory."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from conformance.adapters.base import PortFault
from conformance.adapters.external.limits import Limits, family

LONGEST_LINE = 16 * 1024 * 1024
_LAST_WORDS = 200
_GRACE = 2.0


class LineProcess:
    """Starts a command in a process group of its own; its standard error goes into a file."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        """PortFault when the command cannot be started."""
        self._errors = folder / "stderr.txt"
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
                )
        except OSError as error:
            raise PortFault(f"the port cannot be started: {command[0]}: {error.strerror}") from None
        self._lines: queue.Queue[bytes | None] = queue.Queue(maxsize=8)
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def ask(self, line: str, limits: Limits) -> str:
        """The line that comes back.

        PortFault if the process has died, hangs, uses too much memory, or writes something that is not a line of text.
        """
        if not self._lines.empty():
            raise self._fault_before_the_question()
        writer = threading.Thread(target=self._write, args=(line,), daemon=True)
        writer.start()  # a port that does not read must not block this process either
        try:
            said = limits.keep(self._process.pid, lambda seconds: self._lines.get(timeout=seconds), queue.Empty)
        except queue.Empty:
            raise PortFault(f"the port hangs: no answer within {limits.seconds:g} s") from None
        if said is None:
            raise self._death()
        if len(said) > LONGEST_LINE:
            raise PortFault(f"the port said a line of more than {LONGEST_LINE} bytes")
        try:
            return said.decode()
        except UnicodeDecodeError:
            raise PortFault(f"the port said what is no UTF-8: {said[:40]!r}") from None

    def stop(self, line: str) -> None:
        """Send a last line, close the input, wait a moment, then kill the process."""
        self._write(line)
        self._close_input()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        self.kill()

    def kill(self) -> None:
        """End the process and its descendants; the reader closes the output, which one that escaped may hold."""
        kill_group(self._process)
        self._close_input()

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()

    def _read(self, stdout: IO[bytes]) -> None:
        with stdout, contextlib.suppress(queue.Full):  # this many lines are a fault, whatever follows
            while line := stdout.readline(LONGEST_LINE + 1):
                self._lines.put_nowait(line)
                if len(line) > LONGEST_LINE:
                    return
            self._lines.put_nowait(None)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the process died: the reader reports it
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _fault_before_the_question(self) -> PortFault:
        said = self._lines.get()
        return self._death() if said is None else PortFault(f"the port said {said[:80]!r} before it was asked")

    def _death(self) -> PortFault:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        return death(self._process.returncode, last_words(self._errors.read_bytes()))


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started in a session of its own, and all of its descendants."""
    members = family(process.pid) if process.returncode is None else []  # some may have left the group
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    for member in members:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()


def death(code: int | None, words: str) -> PortFault:
    """The fault of a process that ended or closed its output before it answered."""
    how = "it closed its output" if code is None else ending(code)
    return PortFault(f"the port died: {how}" + (f"; its last words: {words}" if words else ""))


def ending(code: int) -> str:
    """How a process ended, in words, from its return code."""
    return f"exit {code}" if code >= 0 else f"signal {-code}"


def last_words(said: bytes) -> str:
    """The last words of a process, on one line."""
    return " ".join(said.decode(errors="replace").split())[-_LAST_WORDS:]
