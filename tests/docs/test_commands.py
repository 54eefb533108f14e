"""Every command that a document shows is one that its program takes: subcommands, options and their values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from configparser import ConfigParser
from typing import Any

import pytest
import typer

from conformance.cli.app import app
from conformance.conftest import pytest_addoption
from mlx_impl.cli.app import app as mlx_impl_app
from tests.support import ROOT
from tests.support.markdown import DOCUMENTS, code


def shown() -> Iterator[tuple[str, str]]:
    """Document and command, for each line of a code block that begins with a program of ours, and each such `code`."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        lines = [line for body in code(text) for line in body.splitlines()]
        lines += re.findall(r"`(gemma4-conformance [^`]+)`", text)
        for line in lines:
            for command in line.split(" && "):
                if command.startswith(tuple(PROGRAMS)):
                    yield path.relative_to(ROOT).as_posix(), re.split(r" #| [<>] ", command)[0].strip()


def typer_takes(application: typer.Typer) -> Callable[[list[str]], None]:
    """A parser of arguments that raises what the program would exit with; a command alone is only named."""
    program: Any = typer.main.get_command(application)

    def parse(words: list[str]) -> None:
        command, rest = program, words
        while rest and rest[0] in getattr(command, "commands", ()):
            command, rest = command.commands[rest[0]], rest[1:]
        assert command is not program, words
        assert not hasattr(command, "commands") or not rest or rest[0].startswith("-"), words
        if len(words) > 1:
            command.make_context("program", list(rest))

    return parse


class Options:
    """What `pytest_addoption` adds, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def getgroup(self, _: str) -> Options:
        return self

    def addoption(self, name: str, **_: Any) -> None:
        self.names.append(name)


def pytest_takes(words: list[str]) -> None:
    """Options of the suite, pytest's own `-n`, `-m`, `-o`, and files that are there."""
    options = Options()
    pytest_addoption(options)  # type: ignore[arg-type]
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            assert word in [*options.names, "--hypothesis-profile"], word
            next(rest)
        elif word in ("-n", "-m", "-o"):
            next(rest)
        else:
            assert (ROOT / word.split("::")[0]).exists(), word


def tox_takes(words: list[str]) -> None:
    """Environments that tox.ini describes."""
    config = ConfigParser()
    config.read(ROOT / "tox.ini")
    known = {section.removeprefix("testenv:") for section in config.sections()} | {"py311"}
    assert set(words) <= known


PROGRAMS: Mapping[str, Callable[[list[str]], None]] = {
    "gemma4-conformance": typer_takes(app),
    "python -m mlx_impl": typer_takes(mlx_impl_app),
    "pytest": pytest_takes,
    "tox -e": tox_takes,
}
SHOWN = sorted(set(shown()))


def take(command: str) -> None:
    """Have a command parsed by its program; an exception where it is not one."""
    program = next(name for name in PROGRAMS if command.startswith(name))
    PROGRAMS[program](shlex.split(command.removeprefix(program), comments=True))


def is_taken(command: str) -> bool:
    try:
        take(command)
    except Exception:  # whatever a parser raises
        return False
    return True


@pytest.mark.parametrize(
    "command",
    [pytest.param(command, id=f"{document}: {command}") for document, command in SHOWN],
)
def test_a_command_is_taken_by_its_program(command: str) -> None:
    take(command)


@pytest.mark.parametrize(
    "command",
    [
        "gemma4-conformance judge",
        "gemma4-conformance run --implementation x",
        "gemma4-conformance run --profile f8",
        "gemma4-conformance bugs show",
        "gemma4-conformance bugs tell x",
        "python -m mlx_impl generate --model DIR --warm",
        "pytest conformance/ --implementation x",
        "pytest tests/no_such_test.py",
        "tox -e nothing",
    ],
)
def test_a_wrong_command_would_be_seen(command: str) -> None:
    assert not is_taken(command)


def test_commands_are_found() -> None:
    assert len(SHOWN) > 60
    assert ("README.md", "pytest -n 2") in SHOWN
    assert {document for document, _ in SHOWN} >= {"README.md", "docs/JUDGING.md", "mlx_impl/README.md"}
