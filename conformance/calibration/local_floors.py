"""Measures local floors: the error that honest implementations make at a node, given their own parents of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conformance.adapters.base import Adapter
from conformance.calibration.error_table import ErrorTable, errors_of
from conformance.calibration.honest import HonestAnswer, drafts_of, honest_answers, variants_of
from conformance.judging.compare import Error
from conformance.judging.tolerance import local_tolerance
from conformance.local.bridges import bridges
from conformance.local.choices import Slack
from conformance.local.predict import KINDS, Asked, Predictor
from gemma4_contract import Fixtures
from gemma4_contract.graph import text_graph
from gemma4_contract.models import LocalFloors
from gemma4_contract.progress import Progress

_EVERY_CASE = ""
"""A floor is of a node, whatever the case."""


def measure_local_floors(
    fixtures: Fixtures, profile: str, adapters: Mapping[str, Adapter], seeds: int, command: str, progress: Progress
) -> LocalFloors:
    """The local floors of a profile over these implementations, as `measure_floors`.

    Taps beyond a bridge are left out: they err as far as the nodes between together.
    """
    asked = [(seed, draft) for seed in range(seeds) for draft in drafts_of(seed, profile) if draft.kind in KINDS]
    table, predictor = ErrorTable(), Predictor()
    for one in honest_answers(fixtures, profile, adapters, asked, progress):
        table.add(_EVERY_CASE, one.family, _errors(fixtures, profile, predictor, one))
    arithmetic, policy = fixtures.profile(profile), fixtures.policy
    return LocalFloors(
        profile=profile,
        variants=variants_of(adapters),
        seeds=seeds,
        command=command,
        leave_one_family_out=table.leave_one_out(lambda _, floor: local_tolerance(floor, arithmetic, policy), policy),
        floors=table.floors()[_EVERY_CASE],
    )


def _errors(fixtures: Fixtures, profile: str, predictor: Predictor, one: HonestAnswer) -> Iterator[tuple[str, Error]]:
    """The errors of an answer by node."""
    draft = one.draft
    assert draft.model is not None
    asked = Asked(
        kind=draft.kind,
        params=draft.params,
        model_dir=fixtures.model_dir(draft.model),
        inputs=draft.inputs,
        valid=draft.inputs.get("valid"),
        taps=[tap for tap in draft.taps if tap.name in one.golden],
        shapes={name: value.shape for name, value in one.golden.items()},
    )
    slack = Slack(profile=fixtures.profile(profile), policy=fixtures.policy, offered=one.answer, floors={})
    found = predictor.predict(asked, one.answer, slack)
    through = bridges(asked.taps, one.answer)
    direct = {tap.name: tap for tap in asked.taps if tap.name in one.answer and not through[tap.name]}
    axes = {name: tap.axes for name, tap in direct.items()}
    for name, error in errors_of(one.who, axes, found.taps, {name: one.answer[name] for name in direct}, found.rows):
        node = text_graph().node_of(name)
        assert node is not None
        yield node.tap, error
