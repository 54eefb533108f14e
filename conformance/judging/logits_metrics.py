"""Metrics of a model's logits: divergence, likelihood of a text, and the token that greedy decoding picks.

Tanh keeps order and softmax hides scale, so these metrics catch less than the taps; they show the cost of an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conformance.judging.compare import Error, TapVerdict
from conformance.judging.tolerance import CaseFloors, Tolerance
from gemma4_contract import Policy
from gemma4_contract.tensors import Array

KL, NLL, ARGMAX = "logits.kl", "logits.nll", "logits.argmax"
"""Names of the figures among the taps; KL and NLL have floors of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeModel:
    """Figures over the rows that count.

    KL divergence of the answer from the golden in nats (mean, 99th percentile), relative difference of the text's
    mean negative log-likelihood, and arg-maxes: rows where the golden's margin decides, those of them that agree, and
    rows that rounding could decide either way.
    """

    kl_mean: float
    kl_p99: float
    nll: float
    nll_difference: float
    decided: int
    agreeing: int
    undecidable: int


def whole_model(golden: Array, answer: Array, ids: Array, rows: Array, movable: float) -> WholeModel:
    """Figures of logits [B, L, V] for the text `ids` [B, L] over `rows` [B, L]; boolean.

    `movable` is what the profile may move a logit by: a row's arg-max is decided where the golden's two largest
    logits lie further apart than twice that.
    """
    expected, got = _log_softmax(golden), _log_softmax(np.where(rows[..., None], answer, golden))
    divergence = np.sum(np.exp(expected) * (expected - got), axis=-1)[rows]
    following = rows[:, :-1] & rows[:, 1:]
    likelihoods = [
        -np.take_along_axis(scores[:, :-1], ids[:, 1:, None], -1)[..., 0][following] for scores in (expected, got)
    ]
    nll, nll_answer = (float(x.mean()) if x.size else 0.0 for x in likelihoods)
    two_largest = np.sort(golden.astype(np.float64)[rows], axis=-1)[:, -2:]
    decided = two_largest[:, 1] - two_largest[:, 0] > 2 * movable
    agreeing = golden[rows].argmax(-1) == answer[rows].argmax(-1)
    return WholeModel(
        kl_mean=float(divergence.mean()),
        kl_p99=float(np.quantile(divergence, 0.99)),
        nll=nll,
        nll_difference=abs(nll_answer - nll) / nll if nll else 0.0,
        decided=int(decided.sum()),
        agreeing=int((agreeing & decided).sum()),
        undecidable=int((~decided).sum()),
    )


def judge_logits(
    golden: Array, answer: Array, ids: Array, rows: Array, *, allowed: Tolerance, floors: CaseFloors, policy: Policy
) -> tuple[TapVerdict, ...]:
    """Verdicts on the figures over `rows` [B, L]; none if there are no finite logits to compare.

    `allowed` is the tolerance of the logits, within which rounding may move them.
    """
    if answer.shape != golden.shape or not np.isfinite(answer[rows].astype(np.float64)).all():
        return ()
    figures = whole_model(golden, answer, ids, rows, movable=allowed.max * float(np.abs(golden[rows]).max()))
    return judge_figures(figures, floors[KL], floors[NLL], policy)


def judge_figures(
    figures: WholeModel, kl_floor: list[float], nll_floor: list[float], policy: Policy
) -> tuple[TapVerdict, ...]:
    """Verdicts on the figures: within `floor_factor` times their floors, and every decided arg-max the golden's."""
    divergence = Error(rms=figures.kl_mean, max=figures.kl_p99, worst=())
    likelihood = Error(rms=figures.nll_difference, max=figures.nll_difference, worst=())
    wrong = figures.decided - figures.agreeing
    note = f"{figures.undecidable} more rows are undecidable"
    return (
        _figure(KL, divergence, kl_floor, policy, f"KL divergence {figures.kl_mean:.2e} nats in the mean"),
        _figure(NLL, likelihood, nll_floor, policy, f"log-likelihood differs from {figures.nll:.4f} nats a token"),
        TapVerdict(
            name=ARGMAX,
            status="fail" if wrong else "pass",
            fault=f"{wrong} of {figures.decided} decided rows pick another token, expected none; {note}"
            if wrong
            else "",
        ),
    )


def _figure(name: str, error: Error, floor: list[float], policy: Policy, what: str) -> TapVerdict:
    rms, peak = (max(policy.floor_factor * value, policy.figures_noise) for value in floor)
    allowed = Tolerance(rms=rms, max=peak)
    good = error.rms <= allowed.rms and error.max <= allowed.max
    fault = "" if good else f"{what}, expected at most {allowed.rms:.2e}"
    return TapVerdict(name=name, status="pass" if good else "fail", fault=fault, error=error, tolerance=allowed)


def _log_softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(-1, keepdims=True)
    scores: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return scores
