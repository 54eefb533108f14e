"""`gemma4-conformance report`: a report as one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conformance.cli.app import FixturesDir, app
from conformance.cli.full_size import of_report
from gemma4_contract import Fixtures


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="Folder of `run --report DIR` or `pytest ... --report DIR`.")],
    compare: Annotated[Path | None, typer.Option(help="Folder of an earlier report.", metavar="OLD")] = None,
    fixtures_dir: FixturesDir = None,
) -> None:
    """Write report.html into a report's folder: level, diagnosis, heat maps of error over tolerance, failures."""
    typer.echo(write_report_page(of_report(Fixtures(fixtures_dir), directory), directory, compare))


def write_report_page(fixtures: Fixtures, directory: Path, earlier: Path | None = None) -> Path:
    """Diagnose a report and write its page, with what changed since an earlier one; the page's path."""
    from conformance.diagnosis.whole_report import report_as_text
    from conformance.reporting.page.page import write_page

    return write_page(fixtures, directory, report_as_text(fixtures, directory, None), earlier)
