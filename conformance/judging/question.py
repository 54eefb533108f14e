"""A case as it is put: its inputs, its plan and what is expected, whole or cut to its first tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from conformance.adapters.base import Array, Request
from conformance.judging.routing import Choice, choice_of, choices_of
from gemma4_contract import Case, Fixtures, Plan, TapSpec
from gemma4_contract.graph import text_graph

_COLUMNS = ("L", "S")
"""Axes that are as long as the tokens are many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an implementation is given, and the goldens that it never sees; `taps` are those that are asked.

    `chosen` are a sampled case's experts at every row, with their margins; `whole` is False of a case that was cut.
    """

    case: Case
    model_dir: Path | None
    plan: Plan | None
    inputs: Mapping[str, Array]
    golden: Mapping[str, Array]
    taps: Sequence[TapSpec]
    chosen: Mapping[str, Array] = field(default_factory=dict)
    whole: bool = True

    @classmethod
    def of(cls, fixtures: Fixtures, case_id: str) -> Question:
        """The case as it is stored; FixtureError when a file of it is missing or damaged."""
        case = fixtures.case(case_id)
        return cls(
            case=case,
            model_dir=fixtures.model_dir(case.model) if case.model else None,
            plan=case.plan,
            inputs=fixtures.inputs(case),
            golden=fixtures.golden(case),
            taps=fixtures.taps(case),
            chosen=fixtures.choices(case),
        )

    def request(self, profile: str) -> Request:
        """What an implementation is given of it."""
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

    def stored_part(self, answer: Mapping[str, Array]) -> dict[str, Array]:
        """The answer, cut to what is stored of its goldens; taps of another shape than the whole's as they are."""
        cut = dict(answer)
        for tap in self.taps:
            if tap.picks is not None and tap.name in cut and list(cut[tap.name].shape) == tap.picks.whole:
                cut[tap.name] = cut[tap.name][np.ix_(*tap.picks.indices(tap.axes))]
        return cut

    def whole_rms(self, answer: Mapping[str, Array]) -> dict[str, float]:
        """Root mean squares of the answer's tensors, of those whose golden's is stored (`picks.rms`), over its rows."""
        found = {}
        for tap in self.taps:
            value = answer.get(tap.name)
            if value is None or tap.picks is None or tap.picks.rms is None or list(value.shape) != tap.picks.whole:
                continue
            # After the layers a pass makes the stored rows alone, so that the golden's is theirs.
            rows = tap.numbers("L") if tap.name in text_graph().after_layers else slice(None)
            with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is told of like any other
                found[tap.name] = float(np.sqrt(np.mean(value[:, rows].astype(np.float64) ** 2)))
        return found

    @property
    def shapes(self) -> dict[str, Sequence[int]]:
        """Of the taps in a port."""
        return {tap.name: tap.picks.whole if tap.picks else self.golden[tap.name].shape for tap in self.taps}

    def choices(self, answer: Mapping[str, Array]) -> dict[str, Choice]:
        """The choices of experts that an answer shows, of a sampled case at rows that are not stored as well."""
        routing = [tap.name for tap in self.taps if tap.cls == "routing"]
        if not self.is_sampled:
            return choices_of(self.taps, routing, self.golden, answer)
        found = {}
        for name in routing:
            expected = np.zeros(self.shapes[name], bool)
            np.put_along_axis(expected, self.chosen[name].astype(np.int64), True, -1)
            found[name] = choice_of(self.chosen[f"{name}.margin"], expected, answer.get(name))
        return found

    def stored_rows(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Of rows [B, L] of taps those that are stored."""
        cut = dict(rows)
        for tap in self.taps:
            if tap.picks is not None and tap.name in cut:
                cut[tap.name] = cut[tap.name][:, tap.picks.indices(tap.axes)[tap.axes.index("L")]]
        return cut

    def can_be_shortened(self) -> bool:
        """Whether the first tokens are a question of their own: a forward pass of rows without pads."""
        return self.plan is not None and self.plan.left_pad is None and not self.is_sampled

    @property
    def is_sampled(self) -> bool:
        """Whether of some goldens only a part is stored: of models at full size."""
        return any(tap.picks for tap in self.taps)

    def shortened(self, tokens: int) -> Question:
        """The first `tokens` tokens: no row of a decoder's golden depends on a later one; the case itself if it cannot.

        inputs [B, L] and goldens are cut along L and S, the steps of the plan to the same number of tokens.
        """
        if not self.can_be_shortened() or tokens >= self.inputs["ids"].shape[1]:
            return self
        assert self.plan is not None
        axes = {tap.name: tap.axes for tap in self.taps}
        return replace(
            self,
            whole=False,
            plan=Plan(steps=_first_steps(self.plan.steps, tokens)),
            inputs={name: x[:, :tokens] for name, x in self.inputs.items()},
            golden={name: _cut(x, axes[name], tokens) for name, x in self.golden.items()},
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
