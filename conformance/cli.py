"""`gemma4-conformance`: the command.

Exit codes: 0 conforms, 1 does not, 2 bad input or usage, 3 environment or adapter broke.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from conformance.adapters.registry import AdapterUnavailable, BadOption
from reference.format import FixtureError, Fixtures, default_root
from reference.format.files import canonical_json, write_atomic
from reference.format.models import Profile
from reference.format.store import write_model

CONFORMS, DIFFERS, BAD_INPUT, ENVIRONMENT = 0, 1, 2, 3

app = typer.Typer(
    help="Numerical conformance of Gemma 4 text decoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out, _err = Console(), Console(stderr=True)

FixturesDir = Annotated[
    Path | None,
    typer.Option(
        "--fixtures-dir", envvar="GEMMA4_FIXTURES", help="Fixtures folder (default: the installed one).", metavar="DIR"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def main() -> None:
    """Run the command; every error that a user can cause is one line on stderr."""
    try:
        app()
    except (FixtureError, BadOption) as error:
        _stop(str(error), BAD_INPUT)
    except AdapterUnavailable as error:
        _stop(str(error), ENVIRONMENT)
    except OSError as error:
        _stop(f"{error.filename}: {error.strerror}; choose a place that can be written", BAD_INPUT)


def _complain(message: str) -> None:
    """One line on stderr, whatever the width of the terminal."""
    _err.print(message, markup=False, highlight=False, soft_wrap=True)


def _stop(message: str, code: int) -> None:
    _complain(message)
    sys.exit(code)


@app.command("list")
def list_cases(
    pattern: Annotated[str, typer.Argument(help="Glob over case ids.")] = "*",
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """List the cases: id and purpose."""
    fixtures = Fixtures(fixtures_dir)
    cases = [case for case in fixtures.cases() if fnmatchcase(case.id, pattern)]
    if not cases:
        raise FixtureError(pattern, got="no case that matches", expected="a glob over case ids", cure="try '*rope*'")
    if as_json:
        rows = [{"id": case.id, "kind": case.kind, "model": case.model, "purpose": case.purpose} for case in cases]
        typer.echo(json.dumps(rows, indent=1))
        return
    for case in cases:
        if _out.is_terminal:
            _out.print(f"[bold]{case.id}[/bold]\n  {escape(case.purpose)}", highlight=False, soft_wrap=True)
        else:  # for grep and cut
            typer.echo(f"{case.id}\t{case.purpose}")


@app.command()
def verify(fixtures_dir: FixturesDir = None, as_json: Json = False) -> None:
    """Check the fixtures: checksums, files too few or too many, JSON against its schema, tensors against their case."""
    fixtures = Fixtures(fixtures_dir)
    faults = fixtures.verify()
    files = fixtures.files()
    size = sum(path.stat().st_size for path in files)
    if as_json:
        summary = {"files": len(files), "bytes": size, "cases": len(fixtures.case_ids)}
        typer.echo(json.dumps({**summary, "faults": [str(fault) for fault in faults]}, indent=1))
    else:
        for fault in faults:
            _complain(str(fault))
        _out.print(
            f"{len(files)} files, {size / 1_000_000:.1f} MB, {len(fixtures.case_ids)} cases, {len(faults)} faults",
            highlight=False,
        )
    raise typer.Exit(BAD_INPUT if faults else CONFORMS)


@app.command()
def export(
    fixtures_dir: FixturesDir = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: make all again and compare with what is stored.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the fixtures again; a golden is accepted only when the oracle and transformers agree on it.

    Needs the extra `reference`. An interrupted run leaves the fixtures as they were.
    """
    root = fixtures_dir or default_root()
    with _needs_reference("export"), _progress(quiet=as_json) as progress:
        from reference.export import check as checker
        from reference.export import exporter

        if not check:
            exporter.export(root, progress)
            raise typer.Exit(CONFORMS)
        result = checker.check(root, progress)
    if as_json:
        typer.echo(json.dumps({"equal": result.equal, "close": result.close, "faults": result.faults}, indent=1))
    else:
        for fault in result.faults:
            _complain(fault)
        _out.print(
            f"{result.equal} files equal to the bit, {result.close} equal within rounding, "
            f"{len(result.faults)} different",
            highlight=False,
        )
    raise typer.Exit(DIFFERS if result.faults else CONFORMS)


@app.command()
def floors(
    profile: Annotated[Profile, typer.Option(help="The arithmetic to measure.")] = "f32",
    seeds: Annotated[int, typer.Option(min=1, help="Input seeds per case; the first is the stored input.")] = 9,
    fixtures_dir: FixturesDir = None,
) -> None:
    """Measure the errors that honest implementations make, and write them to floors/<profile>.json.

    Needs the extras `reference` and `mlx-lm`.
    """
    fixtures = Fixtures(fixtures_dir)
    for fault in fixtures.verify():
        if fixtures.root / "floors" not in Path(fault.path).parents:  # damage must not be measured, and never summed up
            raise fault
    with _needs_reference("floors"), _progress(quiet=False) as progress:
        from conformance.floors import honest_variants, measure_floors

        command = f"gemma4-conformance floors --profile {profile} --seeds {seeds}"
        measured = measure_floors(fixtures, profile, honest_variants(profile), seeds, command, progress)
        write_model(fixtures.root / "floors" / f"{profile}.json", measured)
        fixtures.write_sums()
    for family, ratio in measured.leave_one_family_out.items():
        _out.print(f"without the {family} family the floors would be exceeded {ratio} times at most", highlight=False)


@app.command("self-test")
def self_test(
    honest: Annotated[
        bool, typer.Option("--honest", help="Judge every honest implementation: none may be accused.")
    ] = False,
    profile: Annotated[Profile | None, typer.Option(help="Judge this profile alone (default: all).")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the JSON to this file too.", metavar="FILE")] = None,
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Test the suite itself.

    Needs the extras `reference` and `mlx-lm`.
    """
    if not honest:
        raise BadOption("self-test: got no test to run, expected --honest")
    fixtures = Fixtures(fixtures_dir)
    profiles = [profile] if profile else fixtures.profiles
    with _needs_reference("self-test"), _progress(quiet=as_json) as progress:
        from conformance import honest as specificity

        results = specificity.trials(fixtures, profiles, progress)
    accused = sum(len(trial.accused) for trial in results)
    summary = specificity.as_json(results, fixtures)
    if save:
        write_atomic(save, canonical_json(summary))
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        for trial in results:
            for case_id in trial.accused:
                _complain(f"{trial.profile}, {trial.variant}: accused in {case_id}")
        _out.print(specificity.as_table(results), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(DIFFERS if accused else CONFORMS)


@contextmanager
def _needs_reference(command: str) -> Iterator[None]:
    """A missing extra, and a golden or floor that is refused, as one line and an exit code."""
    from reference.export.errors import ExportError

    try:
        yield
    except ImportError as error:
        cure = "pip install 'gemma4-conformance[reference,mlx-lm]'"
        raise AdapterUnavailable(f"{command} needs {error.name or error}; {cure}") from None
    except ExportError as error:
        _stop(str(error), DIFFERS)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr with an estimate of the time that is left."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=_err, disable=quiet or not _err.is_terminal, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
