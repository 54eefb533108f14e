"""The verdict on one example, and the message that a failing one prints."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import assume, currently_in_test_context, event

from gemma4_contract.tensors import Array
from tests.support.laws import mlx_models
from tests.support.laws.configurations import Example
from tests.support.laws.yardstick import Divergence, golden_of, is_narrow, yardstick_of

GROSS = 30.0
"""An error this many times its tolerance is a mistake, whatever rounding does."""

Answers = Callable[[Example], dict[str, Array]]


def discard_narrow(example: Example) -> None:
    """Reject an example in which rounding may choose other experts."""
    narrow = is_narrow(example.config, *golden_of(example))
    event(f"routing margin narrow: {narrow}")
    assume(not narrow)


def divergence(example: Example, answer: Answers = mlx_models.answers) -> Divergence | None:
    """The first tap of mlx_impl (or of another) that its float32 tolerance does not cover.

    Judged first with the floors of four orders of summation; what they do not cover, with Monte Carlo too.
    """
    answers = answer(example)
    found = yardstick_of(example).first_divergence(answers)
    wide = found is not None and found.ratio < GROSS
    if currently_in_test_context():
        event(f"judged with {'Monte Carlo floors' if wide else 'the floors of four orders'}")
    return yardstick_of(example, more=True).first_divergence(answers) if wide else found


def explain(example: Example, found: Divergence) -> str:
    """The failure message: what diverges, on which configuration and plan, and how to see it again."""
    return "\n".join(
        (
            str(found),
            f"text_config: {json.dumps(dict(example.text_config), sort_keys=True)}",
            f"plan: {example.plan}",
            f"reproduce: python -m tests.laws.replay '{example.as_json()}'",
        )
    )
