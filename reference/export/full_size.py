"""Goldens of a model at full size, by a streaming pass of the oracle in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reference import __version__, full_size
from reference.format import Case, Fixtures, GoldenPointer, ModelCard, Plan, Provenance, TapSpec, TensorFile, tensors
from reference.format.documents import write_model
from reference.format.files import canonical_json, sha256, write_atomic
from reference.format.full_size import FOLDER
from reference.format.models import Picks, Stride, TapClass
from reference.format.tensors import Array, dtype_name, tensor_digest
from reference.models import Model
from reference.oracle.arithmetic import F64, Arithmetic
from reference.oracle.decoder import Decoder
from reference.progress import Progress
from reference.streaming import forward, weights
from reference.streaming.arithmetic import streamed
from reference.streaming.kept import Keeper, Kept
from reference.taps import Tap, model_taps
from reference.weights import tensor_shapes


def kept_by_rule(
    model: Model,
    ids: Array,
    ar: Arithmetic,
    progress: Progress,
    state: Path | None = None,
    vocabulary: Sequence[int] | None = None,
) -> dict[str, Kept]:
    """What is kept of a pass over weights by rule, in this arithmetic."""
    decoder = Decoder(model.config, weights.by_rule(model, ar.dtype), streamed(ar))
    rows = full_size.stored_rows(model)
    keeper = Keeper(config=model.config, length=ids.shape[1], rows=rows, vocabulary=vocabulary)
    forward.run(decoder, ids, keeper, progress, state)
    return keeper.kept


def export(model: Model, fixtures: Fixtures, state: Path, progress: Progress) -> None:
    """Make the goldens of a model and write them under `full`; `state` is where an interrupted pass goes on from."""
    ids = full_size.token_ids(model, fixtures)
    write(model, fixtures, ids, kept_by_rule(model, ids, F64, progress, state))


def write(model: Model, fixtures: Fixtures, ids: Array, kept: Mapping[str, Kept]) -> None:
    """Write a model's card, its config.json and its cases."""
    root = fixtures.root / FOLDER
    shapes = tensor_shapes(model.config).values()
    card = ModelCard(
        id=model.id,
        member=model.member.repository,
        purpose=model.purpose,
        overrides=dict(model.overrides),
        tensors=len(shapes),
        parameters=sum(math.prod(shape) for shape in shapes),
        redundant_shared_kv=False,
        acceptance={},
    )
    write_model(root / "models" / model.id / "model.json", card)
    write_atomic(root / "models" / model.id / "config.json", canonical_json(model.config_json))
    for case, files in _cases(model, ids, kept):
        directory = root / "cases" / case.id
        for name, data in files.items():
            write_atomic(directory / name, data)
        write_model(directory / "case.json", case)
    fixtures.write_sums()


def _cases(model: Model, ids: Array, kept: Mapping[str, Kept]) -> list[tuple[Case, dict[str, bytes]]]:
    """The case that stores the golden, and those that point into it, with the files of their folders."""
    length, prefill = ids.shape[1], full_size.prefill_length(model)
    decode = [prefill] + [1] * full_size.DECODE_STEPS
    stored = {name: one.values.astype(np.float32) for name, one in kept.items()}
    golden = tensors.encode(stored)
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
            model=model.id,
            purpose=f"At full width, {count} tokens of real prompts: {purpose}",
            inputs=TensorFile(file="inputs.safetensors", sha256=sha256(inputs)),
            plan=plan,
            golden=TensorFile(file="expected_f32.safetensors", sha256=sha256(golden))
            if owns
            else GoldenPointer(case=owner, rows=[0, count]),
            taps=_specs(model, kept, stored) if owns else [],
            provenance=Provenance(
                generator=f"gemma4-conformance {__version__}",
                versions={"numpy": np.__version__},
                command=f"gemma4-conformance export --model {model.id}",
                derivations=["oracle, streamed"],
            ),
        )
        files = {"inputs.safetensors": inputs} | ({"expected_f32.safetensors": golden} if owns else {})
        made.append((case, files))
    return made


def _specs(model: Model, kept: Mapping[str, Kept], stored: Mapping[str, Array]) -> list[TapSpec]:
    taps = {tap.name: tap for tap in model_taps(model.config)}
    return [
        TapSpec(
            name=name,
            parents=sorted(_kept_ancestors(name, taps, kept), key=list(taps).index),
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
        for name, one in kept.items()
    ]


def _strided(indices: Sequence[int]) -> list[int] | Stride:
    """Indices at regular distances in short."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    stride = Stride(start=indices[0], step=step, count=len(indices))
    return stride if stride.indices == list(indices) else list(indices)


def _kept_ancestors(name: str, taps: Mapping[str, Tap], kept: Mapping[str, Kept]) -> set[str]:
    """The nearest taps that are kept, upstream of one."""
    found: set[str] = set()
    for parent in taps[name].parents:
        found |= {parent} if parent in kept else _kept_ancestors(parent, taps, kept)
    return found


def _class(tap: Tap) -> TapClass:
    return "routing" if tap.is_routing else "floor"
