"""How the command ends, is interrupted and reads: exit codes, signals, standard streams."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from mlx_impl.errors import MlxImplError

BAD_INPUT, INTERRUPTED = 2, 130


@contextmanager
def ending() -> Iterator[None]:
    """Every error that a user can cause as one line on stderr and an exit code.

    A pipe that nobody reads any more needs nothing here: typer ends with 1 and says nothing.
    """
    try:
        yield
    except MlxImplError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """The first ctrl-C asks for an end between two tokens, which the given function tells; the second ends at once."""
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def tolerant() -> None:
    """Let no encoding end the command in a traceback.

    What stdout cannot write is replaced; what stdin cannot read arrives as lone surrogates, which are refused by name.
    """
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def next_line() -> str | None:
    """What the user says next; None when the input has ended."""
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
