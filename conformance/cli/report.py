"""`gemma4-conformance report`: a report as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conformance.adapters.registry import BadOption
from conformance.cli.app import FixturesDir, app
from conformance.cli.full_size import fixtures_of_report
from conformance.reporting.jsonl import read
from gemma4_contract import Fixtures
from gemma4_contract.files import write_atomic


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Folder of `run --report DIR` or `pytest ... --report DIR`.")],
    compare: Annotated[Path | None, typer.Option(help="Folder of an earlier report.", metavar="OLD")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the map of the model that fails instead.", metavar="FILE.svg")
    ] = None,
    fixtures_dir: FixturesDir = None,
) -> None:
    """Write report.html into a report's folder: level, diagnosis, heat maps of error over tolerance, failures.

    With --picture draw one of these maps as SVG, with the first divergence marked.
    """
    if picture is None:
        typer.echo(write_report_page(fixtures_of_report(Fixtures(fixtures_dir), directory), directory, compare))
        return
    if compare is not None:
        raise BadOption("report: got --picture with --compare, expected one of them: the picture is of one report")
    if picture.suffix != ".svg":
        raise BadOption(f"--picture: got {picture}, expected a name that ends in .svg")
    from conformance.reporting.page.picture import draw_picture

    run, lines = read(directory)
    write_atomic(picture, draw_picture(run, lines.values()).encode())
    typer.echo(picture)


def write_report_page(fixtures: Fixtures, directory: Path, earlier: Path | None = None) -> Path:
    """Diagnose a report and write its page, with what changed since an earlier one; the page's path."""
    from conformance.diagnosis.whole_report import report_as_text
    from conformance.reporting.page.page import write_page

    return write_page(fixtures, directory, report_as_text(fixtures, directory, None), earlier)
