"""`gemma4-conformance explain`: what a tap is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from conformance.cli.app import FixturesDir, Json, app, out
from gemma4_contract import Fixtures
from gemma4_contract.graph import text_graph

_WIDEST = 100


@app.command()
def explain(
    tap: Annotated[str, typer.Argument(metavar="TAP", help="Full name, or the name below the layer.")],
    fixtures_dir: FixturesDir = None,
    as_json: Json = False,
) -> None:
    """Say what a tap is: formula, shapes, inputs, weights, cases, mistakes seen there first, where it is computed."""
    from conformance.diagnosis import explain as explaining

    graph = text_graph()
    found = explaining.facts(graph, Fixtures(fixtures_dir), explaining.place_of(graph, tap))
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        typer.echo(explaining.as_text(graph, found, min(out.width, _WIDEST)))
