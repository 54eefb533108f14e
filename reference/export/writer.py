"""Drafts to case directories, each golden accepted only when its derivations agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gemma4_contract import Case, GoldenPointer, Policy, Provenance, TapSpec, TensorFile, __version__, tensors
from gemma4_contract.documents import write_model
from gemma4_contract.files import sha256, write_atomic
from gemma4_contract.layout import select_rows
from gemma4_contract.models import Lookalike, Lookalikes, TapClass
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array, dtype_name, tensor_digest
from reference.cases import Draft
from reference.cases.hunts import hunted_by, reported
from reference.export.agreement import agreement_limit, worst
from reference.export.derive import Taps, by_oracle, by_transformers, second
from reference.export.errors import ExportError
from reference.export.versions import library_versions
from reference.taps import Tap

COMMAND = "gemma4-conformance export"


class Writer:
    """Writes the cases of one export under `root`/cases; owners of goldens before those that point into them."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.root = root
        self.policy = policy
        self._goldens: dict[str, Taps] = {}

    def write(self, draft: Draft) -> None:
        """Derive a case twice and write it; ExportError when the derivations disagree."""
        derived = by_oracle(draft)
        golden = {tap.name: derived[tap.name] for tap in draft.taps if tap.name in derived}
        if draft.pointer is None:
            figure = self._agreed(draft, by_transformers(draft, lifted=True), golden, "transformers, lifted")
            unlifted, _ = worst(by_transformers(draft, lifted=False), golden)
            if draft.kind == "forward":
                self._goldens = {draft.id: golden}
            self._write_owner(draft, golden, figure, unlifted)
        else:
            stored = self._rows(draft, golden)
            figure = max(
                self._agreed(draft, golden, stored, "the oracle under this plan"),
                self._agreed(draft, by_transformers(draft, lifted=True), stored, "transformers under this plan"),
            )
            self._write_case(draft, GoldenPointer(case=draft.pointer[0], rows=[0, draft.pointer[1]]), [], figure)

    def _rows(self, draft: Draft, derived: Taps) -> Taps:
        """The rows of the owner's golden that this case points to, for the taps that its plan can show."""
        assert draft.pointer is not None
        owner, length = draft.pointer
        pads = draft.plan.left_pad if draft.plan else None
        axes = {tap.name: list(tap.axes) for tap in draft.taps}
        plain = draft.plan is not None and draft.plan.steps is None and pads is None
        return {
            name: select_rows(value, axes[name], slice(0, length), pads or [0])
            for name, value in self._goldens[owner].items()
            if name in derived and (plain or not name.endswith("self_attn.probs"))
        }

    def _agreed(self, draft: Draft, derived: Taps, golden: Taps, who: str) -> float:
        missing = [name for name in golden if name not in derived]
        if missing:
            raise ExportError(f"{draft.id}: {who}: got no {missing[0]}, expected every tap of the golden")
        figure, tap = worst(derived, golden, _valid(draft, golden))
        limit = agreement_limit(self.policy, draft.inputs.get("positions"))
        if not figure <= limit:
            raise ExportError(
                f"{draft.id}: {who} and the golden differ by {figure:.1e} (relative RMS) at {tap}, "
                f"expected at most {limit:.0e}"
            )
        return figure

    def _write_owner(self, draft: Draft, golden: Taps, figure: float, unlifted: float) -> None:
        single = draft.kind in ("forward", "layer")  # whole layers in F64 would double the fixtures
        stored = {name: _stored(value, np.float32 if single else np.float64) for name, value in golden.items()}
        rounded = {name: _stored(value, np.float32) for name, value in golden.items()}
        file = "expected_f32.safetensors" if single else "expected.safetensors"
        specs = [_spec(tap, stored[tap.name], draft) for tap in draft.taps if tap.name in stored]
        has_floats = any(spec.dtype == "F64" for spec in specs)
        self._write_case(
            draft,
            self._tensors(draft, file, stored),
            specs,
            figure,
            unlifted,
            self._tensors(draft, "expected_f32.safetensors", rounded) if has_floats else None,
        )

    def _write_case(
        self,
        draft: Draft,
        golden: TensorFile | GoldenPointer,
        specs: list[TapSpec],
        figure: float,
        unlifted: float | None = None,
        golden_f32: TensorFile | None = None,
    ) -> None:
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
            inputs=self._tensors(draft, "inputs.safetensors", draft.inputs) if draft.inputs else None,
            params=dict(draft.params),
            plan=draft.plan,
            plan_name=draft.plan_name,
            golden=golden,
            golden_f32=golden_f32,
            lookalikes=self._lookalikes(draft) if draft.lookalikes else None,
            mask="valid" if "valid" in draft.inputs else None,
            taps=specs,
            provenance=Provenance(
                generator=f"gemma4-conformance {__version__}",
                versions=library_versions("numpy", "torch", "transformers"),
                command=COMMAND,
                derivations=["oracle", second(draft.kind)],
                agreement=_two_digits(figure),
                agreement_unlifted=None if unlifted is None else _two_digits(unlifted),
            ),
        )
        write_model(self._directory(draft) / "case.json", case)

    def _lookalikes(self, draft: Draft) -> Lookalikes:
        named = {f"{like.tap}.{like.slip}": like for like in draft.lookalikes}
        stored = self._tensors(draft, "lookalikes.safetensors", {name: like.answer for name, like in named.items()})
        known = [Lookalike(tap=like.tap, tensor=name, advice=like.advice) for name, like in named.items()]
        return Lookalikes(file=stored.file, sha256=stored.sha256, known=known)

    def _tensors(self, draft: Draft, file: str, values: Mapping[str, Array]) -> TensorFile:
        data = tensors.encode(values)
        write_atomic(self._directory(draft) / file, data)
        return TensorFile(file=file, sha256=sha256(data))

    def _directory(self, draft: Draft) -> Path:
        return self.root / "cases" / draft.id


def _stored(value: Array, dtype: type) -> Array:
    return value if value.dtype.kind in "iu" else value.astype(dtype)


def _spec(tap: Tap, stored: Array, draft: Draft) -> TapSpec:
    return TapSpec(
        name=tap.name,
        parents=list(tap.parents),
        axes=list(tap.axes),
        dtype=dtype_name(stored),
        shape=list(stored.shape),
        sha256=tensor_digest(stored),
        cls=_class(tap, stored, draft),
    )


def _class(tap: Tap, stored: Array, draft: Draft) -> TapClass:
    if stored.dtype.kind in "iu" or draft.exact or draft.exact_in:
        return "exact"
    if draft.advice is not None:
        return "advice"
    return "routing" if tap.is_routing else "floor"


def _valid(draft: Draft, golden: Taps) -> dict[str, Array | None]:
    """Boolean masks that leave the pads out of each tap."""
    mask = draft.inputs.get("valid")
    axes = {tap.name: tap.axes for tap in draft.taps}
    return {name: spread_mask(mask, axes[name], value.shape) for name, value in golden.items()}


def _two_digits(figure: float) -> float:
    return float(f"{figure:.1e}")
