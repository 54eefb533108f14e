"""Exit codes, signals and standard streams of the command."""

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
def errors_as_exit_codes() -> Iterator[None]:
    """Turn every error that a user can cause into one line on stderr and an exit code.

    A closed pipe needs no handling here: typer ends with 1 and prints nothing.
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
    """Let the first ctrl-C set a flag, which the given function returns, and the second end the command at once."""
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


def relax_encodings() -> None:
    """Let no encoding end the command with a traceback.

    Characters that stdout cannot write are replaced. Bytes that stdin cannot read become lone surrogates, which are
    refused later with a message.
    """
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def next_line() -> str | None:
    """The next line of the user; None at the end of the input."""
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None
