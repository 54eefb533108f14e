"""Writes drafts of miniatures as cases; a golden is accepted only if its derivations agree."""

from __future__ import annotations

from pathlib import Path

from gemma4_contract import Policy, Provenance, __version__
from gemma4_contract.graph import text_graph
from gemma4_contract.layout import select_rows
from gemma4_contract.selection import spread_mask
from gemma4_contract.tensors import Array
from reference.cases import Draft
from reference.export.agreement import agreement_limit, worst_difference
from reference.export.case_files import Golden, write_case
from reference.export.derive import Taps, by_oracle, by_transformers, computable_subgraph, second_derivation
from reference.export.errors import ExportError
from reference.export.versions import library_versions

COMMAND = "gemma4-conformance export"


class Writer:
    """Writes the cases of one export under `root`/cases; owners of goldens before those that point into them."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.root = root
        self.policy = policy
        self._goldens: dict[str, Taps] = {}

    def write(self, draft: Draft) -> None:
        """Derive a case twice and write it; ExportError if the derivations disagree."""
        derived = by_oracle(draft)
        golden = {tap.name: derived[tap.name] for tap in draft.taps if tap.name in derived}
        if draft.pointer is None:
            figure = self._agreed_with_transformers(draft, golden)
            unlifted, _ = worst_difference(by_transformers(draft, lifted=False), golden)
            if draft.kind == "forward":
                self._goldens = {draft.id: golden}
            write_case(self.root, draft, Golden(taps=golden), self._provenance(draft, figure, unlifted))
        else:
            stored = self._rows(draft, golden)
            figure = max(
                self._agreed(draft, golden, stored, "the oracle under this plan"),
                self._agreed(draft, by_transformers(draft, lifted=True), stored, "transformers under this plan"),
            )
            write_case(self.root, draft, None, self._provenance(draft, figure))

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
            if name in derived and text_graph().is_asked(name, plain=plain)
        }

    def _agreed_with_transformers(self, draft: Draft, golden: Taps) -> float:
        derived, who = by_transformers(draft, lifted=True), "transformers, lifted"
        if draft.kind != "subgraph":
            return self._agreed(draft, derived, golden, who)
        around = computable_subgraph(draft)
        rest = by_transformers(around, lifted=True)
        alone = {name: value for name, value in golden.items() if name in derived}
        others = {name: value for name, value in by_oracle(around).items() if name in rest and name not in alone}
        return max(self._agreed(draft, derived, alone, who), self._agreed(around, rest, others, who))

    def _agreed(self, draft: Draft, derived: Taps, golden: Taps, who: str) -> float:
        missing = [name for name in golden if name not in derived]
        if missing:
            raise ExportError(f"{draft.id}: {who}: got no {missing[0]}, expected every tap of the golden")
        figure, tap = worst_difference(derived, golden, _valid(draft, golden))
        limit = agreement_limit(self.policy, draft.inputs.get("positions"))
        if not figure <= limit:
            raise ExportError(
                f"{draft.id}: {who} and the golden differ by {figure:.1e} (relative RMS) at {tap}, "
                f"expected at most {limit:.0e}"
            )
        return figure

    def _provenance(self, draft: Draft, figure: float, unlifted: float | None = None) -> Provenance:
        return Provenance(
            generator=f"gemma4-conformance {__version__}",
            versions=library_versions("numpy", "torch", "transformers"),
            command=COMMAND,
            derivations=["oracle", second_derivation(draft.kind)],
            agreement=_two_digits(figure),
            agreement_unlifted=None if unlifted is None else _two_digits(unlifted),
        )


def _valid(draft: Draft, golden: Taps) -> dict[str, Array | None]:
    """Boolean masks that leave the pads out of each tap."""
    mask = draft.inputs.get("valid")
    axes = {tap.name: tap.axes for tap in draft.taps}
    return {name: spread_mask(mask, axes[name], value.shape) for name, value in golden.items()}


def _two_digits(figure: float) -> float:
    return float(f"{figure:.1e}")
