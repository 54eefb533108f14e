"""Commands on the fixtures: list, verify, export, floors."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from conformance.adapters.registry import BadOption
from conformance.cli import full_size
from conformance.cli.app import (
    BAD_INPUT,
    CONFORMS,
    DIFFERS,
    FixturesDir,
    Json,
    app,
    complain,
    needs_reference,
    out,
    profile_option,
    progress_bar,
)
from conformance.cli.full_size import By, Checkpoint, Goldens
from gemma4_contract import FixtureError, Fixtures, default_root
from gemma4_contract.archive import write_archive
from gemma4_contract.documents import write_model
from gemma4_contract.files import sha256
from gemma4_contract.full_size import FOLDER


@app.command("list")
def list_cases(
    pattern: Annotated[str, typer.Argument(help="Glob over case ids.")] = "*",
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """List the cases, prompts among them: id and purpose."""
    fixtures = Fixtures(fixtures_dir)
    rows = [
        {"id": case.id, "kind": case.kind, "model": case.model, "purpose": case.purpose} for case in fixtures.cases()
    ]
    prompts = (fixtures.prompts.document(prompt_id) for prompt_id in fixtures.prompts.ids)
    rows += [{"id": asked.id, "kind": "prompt", "model": None, "purpose": asked.purpose} for asked in prompts]
    rows = [row for row in rows if fnmatchcase(str(row["id"]), pattern)]
    if not rows:
        raise FixtureError(pattern, got="no case that matches", expected="a glob over case ids", cure="try '*rope*'")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        if out.is_terminal:
            out.print(f"[bold]{row['id']}[/bold]\n  {escape(str(row['purpose']))}", highlight=False, soft_wrap=True)
        else:  # for grep and cut
            typer.echo(f"{row['id']}\t{row['purpose']}")


@app.command()
def verify(
    fixtures_dir: FixturesDir = None,
    vendored: Annotated[
        Path | None, typer.Option(help="A copy in a port's repository, which must be what is installed.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the fixtures: checksums, files too few or too many, JSON against its schema, tensors against their case."""
    fixtures = Fixtures(vendored or fixtures_dir)
    faults = fixtures.verify()
    if (fixtures.root / FOLDER).is_dir():
        faults += full_size.shipped_goldens(fixtures).faults()
    if vendored is not None and (fault := fixtures.differs_from(Fixtures(fixtures_dir))):
        faults.append(fault)
    files = fixtures.files()
    size = sum(path.stat().st_size for path in files)
    if as_json:
        prompts = len(fixtures.prompts.ids)
        summary = {"files": len(files), "bytes": size, "cases": len(fixtures.case_ids), "prompts": prompts}
        typer.echo(json.dumps({**summary, "faults": [str(fault) for fault in faults]}, indent=1))
    else:
        for fault in faults:
            complain(str(fault))
        out.print(
            f"{len(files)} files, {size / 1_000_000:.1f} MB, {len(fixtures.case_ids)} cases, "
            f"{len(fixtures.prompts.ids)} prompts, {len(faults)} faults",
            highlight=False,
        )
    raise typer.Exit(BAD_INPUT if faults else CONFORMS)


@app.command()
def export(
    fixtures_dir: FixturesDir = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: make all again and compare with what is stored.")
    ] = False,
    mistakes: Annotated[
        bool,
        typer.Option(
            "--mistakes", help="Write the known mistakes alone, and which cases hunt them; no golden is made."
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Make the goldens of this model at full size alone, such as e2b-full.", metavar="MODEL"),
    ] = None,
    checkpoint: Checkpoint = None,
    goldens: Goldens = None,
    by: Annotated[
        By,
        typer.Option(help="Who derives them at full size; transformers on a GPU where there is one (needs torch)."),
    ] = "oracle",
    archive: Annotated[
        Path | None,
        typer.Option(help="Make nothing: verify, and pack what is stored into a tar.gz for a release.", metavar="FILE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the fixtures again; a golden is accepted only when the oracle and transformers agree on it.

    Needs the extra `reference`. An interrupted run leaves the fixtures as they were.
    """
    root = fixtures_dir or default_root()
    if archive is not None:
        fixtures = Fixtures(root)
        if faults := fixtures.verify():
            raise faults[0]
        release = version("gemma4-conformance")
        write_archive(fixtures, archive, release)
        typer.echo(f"{archive}: fixtures {release}, sha256 {sha256(archive.read_bytes())}")
        raise typer.Exit(CONFORMS)
    if mistakes:
        if check:
            raise BadOption("export: got --mistakes with --check, expected one of them: --check compares everything")
        from reference.export.mistakes import update

        update(Fixtures(root))
        raise typer.Exit(CONFORMS)
    if (asked := full_size.chosen_model(model, checkpoint, goldens)) is not None:
        full_size.export(asked, Fixtures(root), by, quiet=as_json)
        raise typer.Exit(CONFORMS)
    if by != "oracle":
        raise BadOption(
            f"--by: got {by} without a model, expected it with --model or --checkpoint: all others have both"
        )
    with needs_reference("export"), progress_bar(quiet=as_json) as progress:
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
            complain(fault)
        out.print(
            f"{result.equal} files equal to the bit, {result.close} equal within rounding, "
            f"{len(result.faults)} different",
            highlight=False,
        )
    raise typer.Exit(DIFFERS if result.faults else CONFORMS)


@app.command()
def floors(
    profile: Annotated[str, profile_option("The arithmetic to measure")] = "f32",
    seeds: Annotated[int, typer.Option(min=1, help="Input seeds per case; the first is the stored input.")] = 9,
    model: Annotated[
        str | None, typer.Option(help="Measure this model at full size alone, such as e2b-full.", metavar="MODEL")
    ] = None,
    checkpoint: Checkpoint = None,
    goldens: Goldens = None,
    first_only: Annotated[
        bool,
        typer.Option(
            "--first-only", help="At full size: of the text the first tokens alone, which raise what is stored."
        ),
    ] = False,
    cases: Annotated[
        str | None,
        typer.Option(help="Glob over ids: measure these goldens alone; all other floors stay.", metavar="GLOB"),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Measure every node given its own parents: floors/local/<profile>.json.")
    ] = False,
    fixtures_dir: FixturesDir = None,
) -> None:
    """Measure the errors that honest implementations make, and write them to floors/<profile>.json.

    Needs the extras `reference` and `mlx-lm`.
    """
    fixtures = Fixtures(fixtures_dir)
    if (shared := fixtures.profile(profile).floors) != profile:
        raise BadOption(f"--profile: got {profile}, which the floors of {shared} judge, expected {shared}")
    if (asked := full_size.chosen_model(model, checkpoint, goldens, passes_take_turns=True)) is not None:
        if local:
            raise BadOption("--local: got it with a model at full size, which is judged by goldens alone")
        if cases is not None:
            raise BadOption("--cases: got it with a model at full size, expected it without --model and --checkpoint")
        ratios = full_size.measure(asked, fixtures, profile, first_only=first_only)
    elif first_only:
        raise BadOption("--first-only: got it without a model, expected it with --model or --checkpoint")
    elif local:
        if cases is not None:
            raise BadOption("--cases: got it with --local, expected one of them: a local floor holds in every case")
        ratios = _measure_locally(fixtures, profile, seeds)
    else:
        ratios = _measure(fixtures, profile, seeds, cases)
    for family, ratio in ratios.items():
        out.print(f"without the {family} family the floors would be exceeded {ratio} times at most", highlight=False)


def _check_what_is_measured(fixtures: Fixtures) -> None:
    """FixtureError for damage outside the floors: it must not be measured, and never summed up."""
    for fault in fixtures.verify():
        if fixtures.root / "floors" not in Path(fault.path).parents:
            raise fault


def _measure_locally(fixtures: Fixtures, profile: str, seeds: int) -> dict[str, float]:
    _check_what_is_measured(fixtures)
    with needs_reference("floors"), progress_bar(quiet=False) as progress:
        from conformance.calibration.honest import honest_variants
        from conformance.calibration.local_floors import measure_local_floors

        command = f"gemma4-conformance floors --local --profile {profile} --seeds {seeds}"
        variants = honest_variants(profile)
        measured = measure_local_floors(fixtures, profile, variants, seeds, command, progress)
        write_model(fixtures.local_floors_path(profile), measured)
        fixtures.write_sums()
    return measured.leave_one_family_out


def _measure(fixtures: Fixtures, profile: str, seeds: int, cases: str | None) -> dict[str, float]:
    _check_what_is_measured(fixtures)
    with needs_reference("floors"), progress_bar(quiet=False) as progress:
        from conformance.calibration import floors as calibration
        from conformance.calibration.honest import honest_variants, variants_of

        command = f"gemma4-conformance floors --profile {profile} --seeds {seeds}"
        variants = honest_variants(profile)
        if cases is None:
            measured = calibration.measure_floors(fixtures, profile, variants, seeds, command, progress)
        else:
            stored = fixtures.floors(profile)
            calibration.require_same_makers(stored, variants_of(variants), seeds)  # before the long work
            some = calibration.measure_floors(fixtures, profile, variants, seeds, command, progress, cases)
            measured = calibration.with_measured(stored, some)
        write_model(fixtures.root / "floors" / f"{profile}.json", measured)
        fixtures.write_sums()
    return measured.leave_one_family_out
