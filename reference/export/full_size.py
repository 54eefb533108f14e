"""Makes goldens of a model at full size with a streaming pass in float64: the oracle, transformers, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from gemma4_contract import Fixtures, Provenance, __version__
from gemma4_contract.documents import write_model
from gemma4_contract.files import canonical_json, sha256, write_atomic
from gemma4_contract.models import Picks, Stride
from gemma4_contract.progress import Progress
from gemma4_contract.tensors import Array
from reference import full_size
from reference.cases.full_size import drafts
from reference.export.agreement import agreement_limit, worst_difference
from reference.export.case_files import Golden, write_case
from reference.export.errors import ExportError
from reference.export.versions import library_versions
from reference.oracle.arithmetic import F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.streaming import forward
from reference.streaming.arithmetic import streamed
from reference.streaming.source import Source
from reference.streaming.stored_taps import StoredTap, StoredTapRecorder

By = Literal["oracle", "transformers", "both"]
DERIVATIONS: Mapping[By, Sequence[str]] = {
    "oracle": ["oracle, streamed"],
    "transformers": ["transformers float64, streamed"],
    "both": ["oracle, streamed", "transformers float64, streamed"],
}
"""The derivations of a golden; with both, the golden is the oracle's and is accepted only if they agree."""


def oracle_taps(
    source: Source,
    ids: Array,
    ar: Arithmetic,
    progress: Progress,
    state: Path | None = None,
) -> dict[str, StoredTap]:
    """The stored parts of the taps of an oracle pass in this arithmetic."""
    decoder = Decoder(source.config, source.weights(ar.dtype), streamed(ar))
    recorder = StoredTapRecorder(config=source.config, length=ids.shape[1], rows=full_size.stored_rows(source))
    forward.run(decoder, ids, recorder, progress, state)
    return recorder.taps


def export(source: Source, fixtures: Fixtures, root: Path, states: Path, progress: Progress, by: By = "oracle") -> None:
    """Make the goldens of a model and write them under `root`; an interrupted pass continues from its file in `states`.

    ExportError if the two derivations differ, or if a model by rule echoes its input.
    """
    ids = full_size.token_ids(source, fixtures)
    state = states / f".{source.id}-{sha256(ids.tobytes() + source.fingerprint.encode())[:12]}.state"
    if by != "oracle":  # needs torch, whose absence must be reported before the long work
        from reference.export.full_size_transformers import transformers_taps
    if by == "transformers":
        made = transformers_taps(source, ids, "f64", progress)
    else:
        made = oracle_taps(source, ids, F64, progress, state)
    if source.card.weights_rule is not None and not (echo := _echo(ids, made)) <= fixtures.policy.acceptance_echo:
        raise ExportError(f"{source.id}: at {echo:.0%} of the stored rows the likeliest token is the input")
    agreement = None
    if by == "both":
        second = transformers_taps(source, ids, "f64", progress, made["logits"].indices["V"])
        agreement = agreement_of(made, second)
        if not agreement <= agreement_limit(fixtures.policy, np.arange(ids.shape[1])):
            raise ExportError(f"{source.id}: the two derivations differ by {agreement:.1e}")
    write(source, root, ids, made, by, agreement)
    state.unlink(missing_ok=True)


def agreement_of(made: Mapping[str, StoredTap], second: Mapping[str, StoredTap]) -> float:
    """The largest relative RMS difference of two derivations over all taps."""
    figure, _ = worst_difference(*({name: one.values for name, one in derived.items()} for derived in (second, made)))
    return figure


def write(
    source: Source, root: Path, ids: Array, made: Mapping[str, StoredTap], by: By, agreement: float | None = None
) -> None:
    """Write a model's card, its config.json and its cases."""
    folder = root / "models" / source.id
    write_model(folder / "model.json", source.card.model_copy(update={"acceptance": {"echo": _echo(ids, made)}}))
    write_atomic(folder / "config.json", canonical_json(source.config_json))
    provenance = Provenance(
        generator=f"gemma4-conformance {__version__}",
        versions=library_versions("numpy", *(() if by == "oracle" else ("torch", "transformers"))),
        command=f"gemma4-conformance export {source.option}" + (f" --by {by}" if by != "oracle" else ""),
        derivations=list(DERIVATIONS[by]),
        agreement=None if agreement is None else float(f"{agreement:.1e}"),
    )
    for draft in drafts(source, ids):
        write_case(root, draft, None if draft.pointer else _golden(made), provenance)


def _echo(ids: Array, made: Mapping[str, StoredTap]) -> float:
    """The share of stored rows whose arg-max is the input: each row's largest logits are among the stored ones."""
    logits = made["logits"]
    likeliest = np.asarray(logits.indices["V"])[logits.values[0].argmax(-1)]
    return float(f"{(likeliest == ids[0, list(logits.indices['L'])]).mean():.2g}")


def _golden(made: Mapping[str, StoredTap]) -> Golden:
    chosen = {name: one.chosen for name, one in made.items() if one.chosen is not None}
    margins = {f"{name}.margin": one.margins for name, one in made.items() if one.margins is not None}
    picks = {
        name: Picks(
            whole=list(one.whole),
            taken={axis: _strided(indices) for axis, indices in one.indices.items()},
            rms=float(f"{one.rms:.9g}"),
        )
        for name, one in made.items()
    }
    return Golden(taps={name: one.values for name, one in made.items()}, picks=picks, choices=chosen | margins)


def _strided(indices: Sequence[int]) -> list[int] | Stride:
    """Indices at regular distances in short."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    stride = Stride(start=indices[0], step=step, count=len(indices))
    return stride if stride.indices == list(indices) else list(indices)
