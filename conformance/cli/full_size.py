"""The command `materialize`, and the models at full size of `export`, `floors` and `run`: by rule or the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conformance.adapters.registry import BadOption
from conformance.cli.app import INTERRUPTED, Json, app, needs_reference, out, progress_bar
from conformance.fetch import cache
from conformance.reporting.jsonl import read
from conformance.reporting.reproduce import checkpoint_options
from gemma4_contract import Fixtures, ModelCard
from gemma4_contract.documents import read_model, write_model
from gemma4_contract.full_size import FOLDER, at_full_size, own_goldens

if TYPE_CHECKING:
    from reference.models import Model
    from reference.streaming.source import Source

_LAYER_BYTES = 1 << 30
"""Memory for the numbers of a layer's weights, one byte each."""
OpenGoldens = Callable[[Fixtures], Fixtures]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Folder of a checkpoint of your own, plain or quantised by MLX.", metavar="DIR"),
]
By = Literal["oracle", "transformers", "both"]
Goldens = Annotated[Path | None, typer.Option(help="Folder for the goldens of --checkpoint.", metavar="DIR")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSizeModel:
    """The model at full size of a command, and the function that opens its goldens."""

    source: Source
    open_goldens: OpenGoldens
    root: Path | None = None
    """The folder of the goldens; None if they are in the fixtures."""


def goldens_opener(checkpoint: Path | None, goldens: Path | None) -> OpenGoldens | None:
    """The function that opens the goldens of a user's checkpoint, or None; BadOption if only one option is given."""
    if (checkpoint is None) != (goldens is None):
        raise BadOption("--checkpoint, --goldens: got one of them, expected both: weights, and what is made of them")
    if checkpoint is None or goldens is None:
        return None
    return partial(_own_goldens, checkpoint=checkpoint, goldens=goldens)


def shipped_goldens(fixtures: Fixtures) -> Fixtures:
    """The goldens of the fixtures, with the weights in the cache."""
    return at_full_size(fixtures, cache.full_size_dir())


def fixtures_of_report(fixtures: Fixtures, path: Path) -> Fixtures:
    """The fixtures of a report; FixtureError if it is broken, or if its goldens no longer exist."""
    full_size = read(path)[0].full_size
    if full_size is None:
        return fixtures
    if full_size.checkpoint is None or full_size.goldens is None:
        return shipped_goldens(fixtures)
    return _own_goldens(fixtures, Path(full_size.checkpoint), Path(full_size.goldens))


def chosen_model(
    model: str | None, checkpoint: Path | None, goldens: Path | None, *, passes_take_turns: bool = False
) -> FullSizeModel | None:
    """The model that the options name, or None; BadOption or FixtureError if it does not exist.

    If passes take turns, the numbers of a layer's weights stay in memory.
    """
    from reference import weights
    from reference.streaming import source
    from reference.streaming.matrix import Remembered

    own = goldens_opener(checkpoint, goldens)
    if own is not None and model is not None:
        raise BadOption("--checkpoint, --model: got both, expected one of them")
    if own is not None and checkpoint is not None:
        return FullSizeModel(source=source.from_checkpoint(checkpoint), open_goldens=own, root=goldens)
    if model is None:
        return None
    q = Remembered(_LAYER_BYTES) if passes_take_turns else weights.q
    return FullSizeModel(source=source.rule(_by_rule(model), q), open_goldens=shipped_goldens)


def export(model: FullSizeModel, fixtures: Fixtures, by: By, *, quiet: bool) -> None:
    """Make the goldens layer by layer; after ctrl-C the next call continues from there."""
    from reference.export import full_size as exporter

    root = model.root or fixtures.root / FOLDER
    with needs_reference("export"), progress_bar(quiet=quiet) as progress:
        try:
            exporter.export(model.source, fixtures, root, model.root or cache.full_size_dir(), progress, by)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    model.open_goldens(fixtures).write_sums()
    if not quiet:
        folder = root / "cases" / "forward" / model.source.id
        size = sum(path.stat().st_size for path in folder.rglob("*.*"))
        out.print(f"{folder}: {size / 1e6:.2f} MB", markup=False, highlight=False, soft_wrap=True)


def measure(model: FullSizeModel, fixtures: Fixtures, profile: str, *, first_only: bool) -> dict[str, float]:
    """Measure and write the floors of a profile and the model's figure of acceptance; return the families' ratios."""
    with needs_reference("floors"), progress_bar(quiet=False) as progress:
        from conformance.calibration.full_size_floors import measure_full_size

        store = model.open_goldens(fixtures)
        measured = measure_full_size(model.source, store, profile, progress, first_only=first_only)
        write_model(store.root / "floors" / f"{profile}.json", measured.floors)
        path = store.card_dir(model.source.id) / "model.json"
        card = read_model(path, ModelCard)
        write_model(path, card.model_copy(update={"acceptance": card.acceptance | measured.acceptance}))
        store.write_sums()
    return measured.ratios


@app.command()
def materialize(
    model: Annotated[str, typer.Argument(help="A model at full size, such as e2b-full.")],
    out_dir: Annotated[
        Path | None,
        typer.Argument(
            help="Folder to make (default: in the cache, where L5 looks).", metavar="DIR", show_default=False
        ),
    ] = None,
    dtype: Annotated[
        Literal["bf16", "f16", "f32"], typer.Option(help="Dtype of the tensors; each holds the weights exactly.")
    ] = "bf16",
    shards: Annotated[int, typer.Option(help="Files that the tensors are spread over.", min=1)] = 1,
    quantize: Annotated[
        int | None, typer.Option(help="Quantise matrices to so many bits, as MLX does (needs mlx).", metavar="BITS")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the weights of a model at full size as an ordinary checkpoint.

    Memory stays small. The next call continues an interrupted one; a file has its final name when it is complete.
    """
    from reference.export.errors import ExportError
    from reference.export.materialize import BITS
    from reference.export.materialize import materialize as write

    if quantize is not None and quantize not in BITS:
        raise BadOption(f"--quantize: got {quantize}, expected one of {', '.join(map(str, BITS))}")
    if quantize is not None and dtype != "bf16":
        raise BadOption(f"--dtype: got {dtype} with --quantize, expected bf16, as MLX stores scales and biases")
    chosen = _by_rule(model)
    target = cache.full_size_dir() / (f"{model}-{quantize}bit" if quantize else model) if out_dir is None else out_dir
    with needs_reference("materialize"), progress_bar(quiet=as_json) as progress:
        try:
            write(chosen, target, shards=shards, bits=quantize, progress=progress, dtype=dtype)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except ExportError as error:
            raise BadOption(str(error)) from None
    size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    if as_json:
        typer.echo(json.dumps({"folder": str(target), "bytes": size}))
    else:
        out.print(f"{target}: {size / 1e9:.2f} GB", markup=False, highlight=False, soft_wrap=True)


def _own_goldens(fixtures: Fixtures, checkpoint: Path, goldens: Path) -> Fixtures:
    cure = f"make them: gemma4-conformance export{checkpoint_options(checkpoint, goldens)}"
    return own_goldens(fixtures, goldens, checkpoint, cure=cure)


def _by_rule(model_id: str) -> Model:
    """One of `full_size.models`; BadOption if there is none with this name."""
    from reference import full_size

    known = full_size.models()
    if model_id not in known:
        raise BadOption(f"model: got {model_id}, expected one of {', '.join(known)}")
    return known[model_id]
