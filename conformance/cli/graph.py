"""`gemma4-conformance graph`: the forward pass as data, for people."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from conformance.cli.app import Json, app, out
from gemma4_contract.graph import text_graph, text_graph_file


@app.command()
def graph(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/FORWARD.md.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="Print docs/forward.svg.")] = False,
    as_json: Json = False,
) -> None:
    """List the taps of the forward pass in the order in which they are computed; `explain TAP` says more of each."""
    from conformance.reporting import forward_figure, forward_page

    found = text_graph()
    if markdown:
        typer.echo(forward_page.as_markdown(found), nl=False)
    elif svg:
        typer.echo(forward_figure.draw(found), nl=False)
    elif as_json:
        typer.echo(text_graph_file().read_text(encoding="utf-8"), nl=False)
    else:
        for node in found.nodes:
            if out.is_terminal:
                entry = f"[bold]{escape(node.short)}[/bold] {escape(node.axes)}\n  {escape(node.does)}"
                out.print(entry, highlight=False, soft_wrap=True)
            else:  # for grep and cut
                typer.echo(f"{node.tap}\t{node.axes}\t{node.does}")
