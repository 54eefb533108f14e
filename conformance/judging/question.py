"""A case as a question: inputs, plan and goldens, whole or cut to its first tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from conformance.adapters.base import Request
from gemma4_contract import Case, Fixtures, Plan, TapSpec
from gemma4_contract.selection import Selection
from gemma4_contract.tensors import Array

_COLUMNS = ("L", "S")
"""Axes that are as long as the tokens are many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The inputs of an implementation, and the goldens that it never sees; `taps` are the wanted taps."""

    case: Case
    model_dir: Path | None
    plan: Plan | None
    inputs: Mapping[str, Array]
    golden: Mapping[str, Array]
    taps: Sequence[TapSpec]
    stored: Selection
    """The part of an answer that the goldens store."""
    lookalikes: Mapping[str, Array]
    """Known wrong answers to the case."""
    has_metrics: bool
    """Whether metrics of the logits are judged too: their floors are for whole texts and whole vocabularies."""

    @classmethod
    def of(cls, fixtures: Fixtures, case_id: str) -> Question:
        """The whole case; FixtureError if one of its files is missing or damaged."""
        case = fixtures.case(case_id)
        taps, golden = fixtures.taps(case), fixtures.golden(case)
        stored = Selection.of(taps, golden, fixtures.choices(case))
        return cls(
            case=case,
            model_dir=fixtures.model_dir(case.model) if case.model else None,
            plan=case.plan,
            inputs=fixtures.inputs(case),
            golden=golden,
            taps=taps,
            stored=stored,
            lookalikes=fixtures.lookalikes(case),
            has_metrics=case.kind == "forward" and stored.is_whole,
        )

    def request(self, profile: str) -> Request:
        """The request to an implementation in a profile."""
        return Request(
            case=self.case.id,
            kind=self.case.kind,
            profile=profile,
            model_dir=self.model_dir,
            plan=self.plan,
            params=self.case.params,
            inputs=self.inputs,
            want=tuple(self.golden),
        )

    def advice(self, tap: str, answer: Mapping[str, Array]) -> str:
        """The advice on a wrong answer at a tap; "" if it is not a known wrong answer."""
        for known in self.case.lookalikes.known if self.case.lookalikes else ():
            if known.tap == tap and np.array_equal(answer[tap], self.lookalikes[known.tensor], equal_nan=True):
                return f"looks like: {known.advice}"
        return ""

    def can_be_shortened(self) -> bool:
        """Whether the case can be cut to its first tokens: a forward pass of rows without pads."""
        return self.plan is not None and self.plan.left_pad is None and self.stored.is_whole

    def shortened(self, tokens: int) -> Question:
        """The first `tokens` tokens, as no row of a golden depends on a later one; the whole case if it cannot be cut.

        inputs [B, L] and goldens are cut along L and S, the steps of the plan to the same number of tokens.
        """
        if not self.can_be_shortened() or tokens >= self.inputs["ids"].shape[1]:
            return self
        assert self.plan is not None
        axes = {tap.name: tap.axes for tap in self.taps}
        golden = {name: _cut(x, axes[name], tokens) for name, x in self.golden.items()}
        return replace(
            self,
            plan=Plan(steps=_first_steps(self.plan.steps, tokens)),
            inputs={name: x[:, :tokens] for name, x in self.inputs.items()},
            golden=golden,
            stored=Selection.of(self.taps, golden, {}),
            has_metrics=False,
        )


def _first_steps(steps: list[int] | None, tokens: int) -> list[int] | None:
    if steps is None:
        return None
    cut: list[int] = []
    for step in steps:
        if (left := tokens - sum(cut)) > 0:
            cut.append(min(step, left))
    return cut


def _cut(x: Array, axes: Sequence[str], tokens: int) -> Array:
    return x[tuple(slice(tokens) if axis in _COLUMNS else slice(None) for axis in axes)]
