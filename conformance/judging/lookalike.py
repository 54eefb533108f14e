"""What a wrong answer looks like: one of the wrong answers that a case knows, each with a sentence of advice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from conformance.adapters.base import Array
from gemma4_contract import Case, Fixtures


def advice(fixtures: Fixtures, case: Case, tap: str, answer: Mapping[str, Array]) -> str:
    """The sentence for the answer that failed at a tap; "" where it is none that the case knows."""
    if case.lookalikes is None:
        return ""
    answers = fixtures.lookalikes(case)
    for known in case.lookalikes.known:
        if known.tap == tap and np.array_equal(answer[tap], answers[known.tensor], equal_nan=True):
            return f"looks like: {known.advice}"
    return ""
