"""`gemma4-conformance bugs`: the catalogue of known mistakes, for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from conformance.cli.app import FixturesDir, Json, app, out
from gemma4_contract import Fixtures
from gemma4_contract.files import write_atomic

bugs_app = typer.Typer(help="The catalogue of known mistakes of ports.", invoke_without_command=True)
app.add_typer(bugs_app, name="bugs")


@bugs_app.callback()
def list_bugs(
    context: typer.Context,
    fixtures_dir: FixturesDir = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the catalogue as pages: docs/mistakes.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the known mistakes: id, area and what the wrong code does."""
    if context.invoked_subcommand is not None:
        return
    from conformance.selftest import catalogue_pages
    from reference.mutants import MUTANTS

    if markdown:
        for name, page in catalogue_pages.pages(Fixtures(fixtures_dir)).items():
            write_atomic(markdown / name, page.encode())
        typer.echo(markdown / catalogue_pages.INDEX)
    elif as_json:
        rows = [{"id": mutant.id, "area": mutant.area, "does": mutant.does} for mutant in MUTANTS.values()]
        typer.echo(json.dumps(rows, indent=1))
    elif out.is_terminal:
        for mutant in MUTANTS.values():
            entry = f"[bold]{mutant.id}[/bold] ({mutant.area})\n  {escape(mutant.does)}"
            out.print(entry, highlight=False, soft_wrap=True)
    else:  # for grep and cut
        for mutant in MUTANTS.values():
            typer.echo(f"{mutant.id}\t{mutant.area}\t{mutant.does}")


@bugs_app.command("show")
def show_bug(
    bug: Annotated[str, typer.Argument(metavar="ID", help="A mistake's id.")],
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Show one known mistake: symptom, where it is first seen, cure, reports, and the cases that hunt it."""
    from conformance.adapters.mutant import known_mistake
    from conformance.selftest import catalogue

    facts = catalogue.facts(known_mistake("bugs show", bug), Fixtures(fixtures_dir))
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        out.print(catalogue.as_text(facts), markup=False, highlight=False, soft_wrap=True)
