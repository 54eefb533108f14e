"""What all commands share: options, progress, and every error as one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from conformance.adapters.registry import AdapterUnavailable
from gemma4_contract import FixtureError, Fixtures, __version__

CONFORMS, DIFFERS, BAD_INPUT, ENVIRONMENT = 0, 1, 2, 3
INTERRUPTED = 130  # as shells have it

app = typer.Typer(
    help="Numerical conformance of Gemma 4 text decoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(emoji=False), Console(stderr=True, emoji=False)  # the words of a port stay unchanged, ":id:" too


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gemma4-conformance {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


FixturesDir = Annotated[
    Path | None,
    typer.Option(
        "--fixtures-dir",
        envvar="GEMMA4_FIXTURES",
        help="Fixtures folder (default: the installed one).",
        metavar="DIR",
        is_eager=True,  # the profiles are those of this folder
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _existing_profile(context: typer.Context, name: str | None) -> str | None:
    known = Fixtures(context.params["fixtures_dir"]).known_profiles
    if name is not None and name not in known:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, known))}.")
    return name


def profile_option(what: str) -> Any:
    """The option --profile: the name of a profile of the fixtures."""
    return typer.Option(
        "--profile",
        help=f"{what} (f32, bf16, ...: see the fixtures' profiles/).",
        metavar="NAME",
        callback=_existing_profile,
    )


def complain(message: str) -> None:
    """One line on stderr, whatever the width of the terminal."""
    err.print(message, markup=False, highlight=False, soft_wrap=True)


def stop(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)


def profiles_of(fixtures: Fixtures, where: str, case: str) -> list[str]:
    """The only profiles that a case is asked in, all if empty; FixtureError if there is no such case."""
    if case not in fixtures.case_ids:
        raise FixtureError(where, got=case, expected="the id of a case", cure="see `gemma4-conformance list`")
    return fixtures.case(case).profiles


@contextmanager
def needs_reference(command: str) -> Iterator[None]:
    """Report a missing extra, or a refused golden or floor, in one line with an exit code."""
    from reference.export.errors import ExportError

    try:
        yield
    except ImportError as error:
        cure = "pip install 'gemma4-conformance[reference,mlx-lm]'"
        raise AdapterUnavailable(f"{command} needs {error.name or error}; {cure}") from None
    except ExportError as error:
        stop(str(error), DIFFERS)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr with an estimate of the time that is left."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
