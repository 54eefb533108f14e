"""Goldens of a model at full size, by a streaming pass in float64: of the oracle, of transformers, or of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from gemma4_contract import Case, Fixtures, GoldenPointer, Plan, Provenance, TapSpec, TensorFile, __version__, tensors
from gemma4_contract.documents import write_model
from gemma4_contract.files import canonical_json, sha256, write_atomic
from gemma4_contract.models import Picks, Stride, TapClass
from gemma4_contract.progress import Progress
from gemma4_contract.tensors import Array, dtype_name, tensor_digest
from reference import full_size
from reference.config import TextConfig
from reference.export.agreement import agreement_limit, worst
from reference.export.errors import ExportError
from reference.export.versions import library_versions
from reference.oracle.arithmetic import F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.streaming import forward
from reference.streaming.arithmetic import streamed
from reference.streaming.kept import Keeper, Kept
from reference.streaming.source import Source
from reference.taps import Tap, model_taps

By = Literal["oracle", "transformers", "both"]
DERIVATIONS: Mapping[By, Sequence[str]] = {
    "oracle": ["oracle, streamed"],
    "transformers": ["transformers float64, streamed"],
    "both": ["oracle, streamed", "transformers float64, streamed"],
}
"""Who derives a golden; of both it is the oracle's, and accepted only where they agree."""


def kept(
    source: Source,
    ids: Array,
    ar: Arithmetic,
    progress: Progress,
    state: Path | None = None,
) -> dict[str, Kept]:
    """What is kept of a pass of the oracle in this arithmetic."""
    decoder = Decoder(source.config, source.weights(ar.dtype), streamed(ar))
    keeper = Keeper(config=source.config, length=ids.shape[1], rows=full_size.stored_rows(source))
    forward.run(decoder, ids, keeper, progress, state)
    return keeper.kept


def export(source: Source, fixtures: Fixtures, root: Path, states: Path, progress: Progress, by: By = "oracle") -> None:
    """Make the goldens of a model and write them under `root`; in `states` lies what an interrupted pass goes on from.

    ExportError where the two derivations differ, and where a model by rule echoes its input.
    """
    ids = full_size.token_ids(source, fixtures)
    state = states / f".{source.id}-{sha256(ids.tobytes() + source.fingerprint.encode())[:12]}.state"
    if by != "oracle":  # torch, which the oracle does without, and whose lack is told before long work
        from reference.export.second import kept_by_transformers
    if by == "transformers":
        made = kept_by_transformers(source, ids, "f64", progress)
    else:
        made = kept(source, ids, F64, progress, state)
    if source.card.weights_rule is not None and not (echo := _echo(ids, made)) <= fixtures.policy.acceptance_echo:
        raise ExportError(f"{source.id}: at {echo:.0%} of the stored rows the likeliest token is the input")
    agreement = None
    if by == "both":
        second = kept_by_transformers(source, ids, "f64", progress, made["logits"].indices["V"])
        agreement = agreement_of(made, second)
        if not agreement <= agreement_limit(fixtures.policy, np.arange(ids.shape[1])):
            raise ExportError(f"{source.id}: the two derivations differ by {agreement:.1e}")
    write(source, root, ids, made, by, agreement)
    state.unlink(missing_ok=True)


def agreement_of(made: Mapping[str, Kept], second: Mapping[str, Kept]) -> float:
    """The largest relative RMS difference of two derivations over all taps."""
    figure, _ = worst(*({name: one.values for name, one in derived.items()} for derived in (second, made)))
    return figure


def write(
    source: Source, root: Path, ids: Array, made: Mapping[str, Kept], by: By, agreement: float | None = None
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
    for case, files in _cases(source, ids, made, provenance):
        directory = root / "cases" / case.id
        for name, data in files.items():
            write_atomic(directory / name, data)
        write_model(directory / "case.json", case)


def _echo(ids: Array, made: Mapping[str, Kept]) -> float:
    """The share of stored rows whose arg-max is the input: each row's largest logits are among those kept."""
    logits = made["logits"]
    likeliest = np.asarray(logits.indices["V"])[logits.values[0].argmax(-1)]
    return float(f"{(likeliest == ids[0, list(logits.indices['L'])]).mean():.2g}")


def _cases(
    model: Source, ids: Array, taken: Mapping[str, Kept], provenance: Provenance
) -> list[tuple[Case, dict[str, bytes]]]:
    """The case that stores the golden, and those that point into it, with the files of their folders."""
    length, prefill = ids.shape[1], full_size.prefill_length(model)
    decode = [prefill] + [1] * full_size.DECODE_STEPS
    stored = {name: one.values.astype(np.float32) for name, one in taken.items()}
    golden = tensors.encode(stored)
    chosen = {name: one.chosen for name, one in taken.items() if one.chosen is not None}
    margins = {f"{name}.margin": one.margins for name, one in taken.items() if one.margins is not None}
    choices = tensors.encode(chosen | margins) if chosen else None
    asked = (
        (length, "no-cache", Plan(steps=None), "all of them in one call without a cache."),
        (length, "decode", Plan(steps=decode), f"the last {full_size.DECODE_STEPS} of them one by one."),
        (64, "no-cache", Plan(steps=None), "within the window."),
        (1, "no-cache", Plan(steps=None), "<bos> alone."),
    )
    made = []
    for count, name, plan, purpose in (one for one in asked if one[0] <= length):
        positions = np.arange(count, dtype=np.int32)[None]
        inputs = tensors.encode({"ids": ids[:, :count], "positions": positions})
        owner = f"forward/{model.id}/text-l{length}/no-cache"
        case_id = f"forward/{model.id}/text-l{count}/{name}"
        owns = case_id == owner
        case = Case(
            id=case_id,
            kind="forward",
            level="L5",
            topic="logits" if plan.steps is None else "decode",
            model=model.id,
            purpose=f"At full width, {count} tokens of real prompts: {purpose}",
            inputs=TensorFile(file="inputs.safetensors", sha256=sha256(inputs)),
            plan=plan,
            plan_name=name,
            golden=TensorFile(file="expected_f32.safetensors", sha256=sha256(golden))
            if owns
            else GoldenPointer(case=owner, rows=[0, count]),
            taps=_specs(model.config, taken, stored) if owns else [],
            choices=TensorFile(file="choices.safetensors", sha256=sha256(choices)) if owns and choices else None,
            provenance=provenance,
        )
        files = {"inputs.safetensors": inputs}
        if owns:
            files["expected_f32.safetensors"] = golden
        if owns and choices:
            files["choices.safetensors"] = choices
        made.append((case, files))
    return made


def _specs(config: TextConfig, taken: Mapping[str, Kept], stored: Mapping[str, Array]) -> list[TapSpec]:
    taps = {tap.name: tap for tap in model_taps(config)}
    return [
        TapSpec(
            name=name,
            parents=sorted(_kept_ancestors(name, taps, taken), key=list(taps).index),
            axes=list(taps[name].axes),
            dtype=dtype_name(stored[name]),
            shape=list(stored[name].shape),
            sha256=tensor_digest(stored[name]),
            cls=_class(taps[name]),
            picks=Picks(
                whole=list(one.whole),
                taken={axis: _strided(indices) for axis, indices in one.indices.items()},
                rms=float(f"{one.rms:.9g}"),
            ),
        )
        for name, one in taken.items()
    ]


def _strided(indices: Sequence[int]) -> list[int] | Stride:
    """Indices at regular distances in short."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    stride = Stride(start=indices[0], step=step, count=len(indices))
    return stride if stride.indices == list(indices) else list(indices)


def _kept_ancestors(name: str, taps: Mapping[str, Tap], taken: Mapping[str, Kept]) -> set[str]:
    """The nearest taps that are kept, upstream of one."""
    found: set[str] = set()
    for parent in taps[name].parents:
        found |= {parent} if parent in taken else _kept_ancestors(parent, taps, taken)
    return found


def _class(tap: Tap) -> TapClass:
    return "routing" if tap.is_routing else "floor"
