"""Commands on the fixtures: list, verify, export, floors."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from conformance.adapters.registry import BadOption
from conformance.cli.app import (
    BAD_INPUT,
    CONFORMS,
    DIFFERS,
    INTERRUPTED,
    FixturesDir,
    Json,
    app,
    complain,
    needs_reference,
    out,
    progress_bar,
)
from conformance.fetch import cache
from reference.format import FixtureError, Fixtures, default_root
from reference.format.archive import write_archive
from reference.format.documents import write_model
from reference.format.files import sha256
from reference.format.full_size import FOLDER, FullSize
from reference.format.models import Profile

if TYPE_CHECKING:
    from reference.models import Model


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
        faults += FullSize(fixtures, cache.full_size_dir()).faults()
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
    model: Annotated[
        str | None,
        typer.Option(help="Make the goldens of this model at full size alone, such as e2b-full.", metavar="MODEL"),
    ] = None,
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
    if model is not None:
        _export_full_size(model, Fixtures(root), quiet=as_json)
        raise typer.Exit(CONFORMS)
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


def _export_full_size(model_id: str, fixtures: Fixtures, *, quiet: bool) -> None:
    """Layer by layer; stopped with ctrl-C it goes on from there at the next call."""
    from reference.export import full_size as exporter

    state = cache.full_size_dir() / f"{model_id}.state"
    with progress_bar(quiet=quiet) as progress:
        try:
            exporter.export(full_size_model(model_id), fixtures, state, progress)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def full_size_model(model_id: str) -> Model:
    """One of `full_size.models`; BadOption where there is none of this name."""
    from reference import full_size

    known = full_size.models()
    if model_id not in known:
        raise BadOption(f"model: got {model_id}, expected one of {', '.join(known)}")
    return known[model_id]


@app.command()
def materialize(
    model: Annotated[str, typer.Argument(help="A model at full size, such as e2b-full.")],
    out_dir: Annotated[
        Path | None,
        typer.Argument(
            help="Folder to make (default: in the cache, where L5 looks).", metavar="DIR", show_default=False
        ),
    ] = None,
    shards: Annotated[int, typer.Option(help="Files that the tensors are spread over.", min=1)] = 1,
    quantize: Annotated[
        int | None, typer.Option(help="Quantise matrices to so many bits, as MLX does (needs mlx).", metavar="BITS")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the weights of a model at full size as an ordinary checkpoint in bfloat16.

    Memory stays small; what was interrupted goes on at the next call, and files bear their names when they are whole.
    """
    from reference.export.errors import ExportError
    from reference.export.materialize import BITS
    from reference.export.materialize import materialize as write

    if quantize is not None and quantize not in BITS:
        raise BadOption(f"--quantize: got {quantize}, expected one of {', '.join(map(str, BITS))}")
    chosen = full_size_model(model)
    target = cache.full_size_dir() / (f"{model}-{quantize}bit" if quantize else model) if out_dir is None else out_dir
    with needs_reference("materialize"), progress_bar(quiet=as_json) as progress:
        try:
            write(chosen, target, shards=shards, bits=quantize, progress=progress)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except ExportError as error:
            raise BadOption(str(error)) from None
    size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    if as_json:
        typer.echo(json.dumps({"folder": str(target), "bytes": size}))
    else:
        out.print(f"{target}: {size / 1e9:.2f} GB", markup=False, highlight=False, soft_wrap=True)


@app.command()
def floors(
    profile: Annotated[Profile, typer.Option(help="The arithmetic to measure.")] = "f32",
    seeds: Annotated[int, typer.Option(min=1, help="Input seeds per case; the first is the stored input.")] = 9,
    model: Annotated[
        str | None, typer.Option(help="Measure this model at full size alone, such as e2b-full.", metavar="MODEL")
    ] = None,
    fixtures_dir: FixturesDir = None,
) -> None:
    """Measure the errors that honest implementations make, and write them to floors/<profile>.json.

    Needs the extras `reference` and `mlx-lm`.
    """
    fixtures = Fixtures(fixtures_dir)
    if model is not None:
        _full_size_floors(model, fixtures, profile)
        raise typer.Exit(CONFORMS)
    for fault in fixtures.verify():
        if fixtures.root / "floors" not in Path(fault.path).parents:  # damage must not be measured, and never summed up
            raise fault
    with needs_reference("floors"), progress_bar(quiet=False) as progress:
        from conformance.floors import honest_variants, measure_floors

        command = f"gemma4-conformance floors --profile {profile} --seeds {seeds}"
        measured = measure_floors(fixtures, profile, honest_variants(profile), seeds, command, progress)
        write_model(fixtures.root / "floors" / f"{profile}.json", measured)
        fixtures.write_sums()
    for family, ratio in measured.leave_one_family_out.items():
        out.print(f"without the {family} family the floors would be exceeded {ratio} times at most", highlight=False)


def _full_size_floors(model_id: str, fixtures: Fixtures, profile: Profile) -> None:
    with needs_reference("floors"), progress_bar(quiet=False) as progress:
        from conformance.full_size_floors import measure_full_size

        full = FullSize(fixtures, cache.full_size_dir())
        measured = measure_full_size(full_size_model(model_id), full, profile, progress)
        write_model(full.root / "floors" / f"{profile}.json", measured)
        fixtures.write_sums()
