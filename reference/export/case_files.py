"""Writes a draft and its golden as the files of a case: tensors and case.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gemma4_contract import Case, GoldenPointer, Provenance, TapSpec, TensorFile, tensors
from gemma4_contract.documents import write_model
from gemma4_contract.files import sha256, write_atomic
from gemma4_contract.models import Lookalike, Lookalikes, Picks, TapClass
from gemma4_contract.tensors import Array, dtype_name, tensor_digest
from reference.cases import Draft
from reference.cases.hunts import hunted_by, reported
from reference.taps import Tap

SINGLE = ("forward", "layer", "subgraph")
"""The kinds whose goldens are stored only in F32: whole layers in F64 would double the fixtures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The stored values of a case's taps, before rounding, and which part of each tap they are."""

    taps: Mapping[str, Array]
    picks: Mapping[str, Picks] = field(default_factory=dict)
    choices: Mapping[str, Array] = field(default_factory=dict)
    """The chosen experts of every row, for the file of that name."""


def write_case(root: Path, draft: Draft, golden: Golden | None, provenance: Provenance) -> None:
    """Write a case under `root`/cases; `golden` is None if the draft points into the golden of another."""
    directory = root / "cases" / draft.id

    def written(file: str, values: Mapping[str, Array]) -> TensorFile:
        data = tensors.encode(values)
        write_atomic(directory / file, data)
        return TensorFile(file=file, sha256=sha256(data))

    stored: dict[str, Array] = {}
    rounded = choices = None
    if golden is None:
        assert draft.pointer is not None
        owned: TensorFile | GoldenPointer = GoldenPointer(case=draft.owner, rows=[0, draft.pointer[1]])
    else:
        single = draft.kind in SINGLE
        stored = {name: _in_dtype(value, np.float32 if single else np.float64) for name, value in golden.taps.items()}
        owned = written("expected_f32.safetensors" if single else "expected.safetensors", stored)
        if any(value.dtype == np.float64 for value in stored.values()):
            in_f32 = {name: _in_dtype(value, np.float32) for name, value in golden.taps.items()}
            rounded = written("expected_f32.safetensors", in_f32)
        choices = written("choices.safetensors", golden.choices) if golden.choices else None
    case = Case(
        id=draft.id,
        kind=draft.kind,
        level=draft.level,
        topic=draft.topic,
        model=draft.model,
        purpose=draft.purpose,
        hunts=hunted_by(draft.id),
        links=reported(hunted_by(draft.id)),
        profiles=list(draft.profiles),
        advice=draft.advice,
        inputs=written("inputs.safetensors", draft.inputs) if draft.inputs else None,
        params=dict(draft.params),
        plan=draft.plan,
        plan_name=draft.plan_name,
        golden=owned,
        golden_f32=rounded,
        choices=choices,
        lookalikes=_lookalikes(draft, written("lookalikes.safetensors", _answers(draft))) if draft.lookalikes else None,
        mask="valid" if "valid" in draft.inputs else None,
        taps=[_spec(tap, stored[tap.name], draft, golden) for tap in draft.taps if golden and tap.name in stored],
        provenance=provenance,
    )
    write_model(directory / "case.json", case)


def _answers(draft: Draft) -> dict[str, Array]:
    return {f"{like.tap}.{like.slip}": like.answer for like in draft.lookalikes}


def _lookalikes(draft: Draft, stored: TensorFile) -> Lookalikes:
    known = [Lookalike(tap=like.tap, tensor=f"{like.tap}.{like.slip}", advice=like.advice) for like in draft.lookalikes]
    return Lookalikes(file=stored.file, sha256=stored.sha256, known=known)


def _in_dtype(value: Array, dtype: type) -> Array:
    return value if value.dtype.kind in "iu" else value.astype(dtype)


def _spec(tap: Tap, stored: Array, draft: Draft, golden: Golden) -> TapSpec:
    return TapSpec(
        name=tap.name,
        parents=list(tap.parents),
        axes=list(tap.axes),
        dtype=dtype_name(stored),
        shape=list(stored.shape),
        sha256=tensor_digest(stored),
        cls=_class(tap, stored, draft),
        picks=golden.picks.get(tap.name),
    )


def _class(tap: Tap, stored: Array, draft: Draft) -> TapClass:
    if stored.dtype.kind in "iu" or draft.exact or draft.exact_in:
        return "exact"
    if draft.advice is not None:
        return "advice"
    return tap.cls
