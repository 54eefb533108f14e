"""Predictions: every tap as the oracle computes it in float64 from the port's own taps before it.

One pass of the oracle computes all of them: it shows its own value of a tap and goes on with the port's. Every plan is
predicted by one call without a cache, because each row of keys and values is the port's own, whatever call made it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conformance.judging.question import Question
from conformance.judging.routing import TapLike
from conformance.local.choices import Slack, choices, decided_rows
from conformance.local.substitutes import Substitutes
from gemma4_contract.selection import spread_mask
from gemma4_contract.subgraph import POSITIONS, subgraph
from gemma4_contract.tensors import Array
from reference.oracle import answers
from reference.oracle.arithmetic import F64
from reference.oracle.decoder import Decoder
from reference.oracle.oracle import ORACLE

KINDS = ("forward", "layer", "attention")
"""Kinds of cases that are predicted. A `subgraph` case gives every tap its golden parents already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A case as a pass of the oracle."""

    kind: str
    params: Mapping[str, Any]
    model_dir: Path
    inputs: Mapping[str, Array]
    valid: Array | None
    """[B, L], 0 at pads."""
    taps: Sequence[TapLike]
    """In execution order."""
    shapes: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, question: Question) -> Asked | None:
        """The pass that a question asks for; None where there are no weights, or no whole answer, to predict from."""
        case = question.case
        if case.kind not in KINDS or question.model_dir is None or not question.stored.is_whole:
            return None
        return cls(
            kind=case.kind,
            params=case.params,
            model_dir=question.model_dir,
            inputs=question.inputs,
            valid=question.inputs.get(case.mask or ""),
            taps=question.taps,
            shapes=question.stored.shapes,
        )

    def usable(self, answer: Mapping[str, Array]) -> dict[str, Array]:
        """The taps of an answer that a pass can go on with: of the right shape, and finite in the rows that count."""
        return {tap.name: answer[tap.name] for tap in self.taps if tap.name in answer and self._is_usable(tap, answer)}

    def _is_usable(self, tap: TapLike, answer: Mapping[str, Array]) -> bool:
        value = answer[tap.name]
        if list(value.shape) != list(self.shapes[tap.name]):
            return False
        finite = np.isfinite(value.astype(np.float64))
        real = spread_mask(self.valid, tap.axes, value.shape)
        return bool((finite if real is None else finite | ~real).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What an answer should be, given itself."""

    offered: Mapping[str, Array]
    """The port's taps that the pass went on with."""
    taps: Mapping[str, Array]
    """Every tap of the pass, in float64."""
    rows: Mapping[str, Array]
    """The rows of each tap that count, boolean [B, L]."""
    doubtful: Collection[str]
    """Taps with rows that depend on a choice of experts which the port does not show and rounding may decide."""


def _right(directory: Path) -> Decoder:
    return ORACLE.load(directory, F64)


class Predictor:
    """Runs passes of the oracle, or of decoders that `load` makes of a model's directory; it keeps the last of them."""

    def __init__(self, load: Callable[[Path], Decoder] = _right) -> None:
        self._decoder = functools.lru_cache(maxsize=4)(load)

    def predict(self, asked: Asked, offered: Mapping[str, Array], slack: Slack) -> Prediction:
        """What the taps of an answer should be, given those that it offers."""
        given = {name: value.astype(np.float64) for name, value in offered.items()}
        taps = self._taps(asked, given, {})
        found = choices(asked.taps, given, taps, slack)
        if found.followed:
            taps = self._taps(asked, given, found.followed)
        rows = decided_rows(asked.taps, given, asked.inputs[POSITIONS].shape, found.hidden)
        real = True if asked.valid is None else asked.valid.astype(bool)
        return Prediction(
            offered=offered,
            taps=taps,
            rows={name: decided & real for name, decided in rows.items()},
            doubtful={name for name, decided in rows.items() if not decided.all()},
        )

    def _taps(self, asked: Asked, given: Mapping[str, Array], experts: Mapping[str, Array]) -> Mapping[str, Array]:
        decoder, inputs = self._decoder(asked.model_dir), asked.inputs
        if asked.kind == "forward":
            record = Substitutes(given, experts, asked.valid)
            decoder.forward(inputs["ids"], inputs[POSITIONS], asked.valid, record=record)
        else:
            part = subgraph(asked.kind, asked.params, inputs)
            record = Substitutes(
                {**given, **{name: F64.cast(x) for name, x in part.given.items()}}, experts, asked.valid
            )
            answers.layer_pass(decoder, part, record)
        return record.taps
