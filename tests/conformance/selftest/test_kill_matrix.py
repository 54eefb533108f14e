"""The kill matrix on a few mutants and cases: which are caught, and where."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.selftest.kill_matrix import Kill, expected_taps, row
from reference.mutants import MUTANTS
from reference.mutants.mutant import STOPS
from tests.support.installed import FIXTURES
from tests.support.kill_matrices import AT_1, EMBEDDING, FEW, FULL, L1, L2, ROPE, SCALE, SLIDING

DENSE = "forward/12b-mini/uniform-l2/no-cache"


def test_a_mutant_is_caught_by_the_cases_that_show_it_and_by_no_other() -> None:
    result = row(FIXTURES, ROPE, "f32", FEW)
    assert (result.mutant, result.profile, result.located) == ("prop-rope-denominator", "f32", True)
    assert [(kill.case, kill.tap) for kill in result.kills] == [
        (AT_1, "y"),
        (FULL, "model.layers.4.self_attn.q_rope"),
        (L2, "model.layers.4.self_attn.q_rope"),  # at L1 there is position 0 alone
    ]


def test_a_mutant_is_asked_what_the_profile_asks() -> None:
    rounded = "module/embedding/rounded-scale-bf16"
    assert [kill.case for kill in row(FIXTURES, SCALE, "bf16", (rounded,)).kills] == [rounded]
    assert [kill.case for kill in row(FIXTURES, SCALE, "f32", (rounded, EMBEDDING)).kills] == [EMBEDDING]


def test_a_mutant_that_nothing_shows_survives() -> None:
    result = row(FIXTURES, ROPE, "f32", (EMBEDDING, SLIDING, L1))
    assert result.kills == ()
    assert not result.located


def test_a_mistake_seen_elsewhere_first_is_not_located() -> None:
    elsewhere = dataclasses.replace(ROPE, first_tap="self_attn.k_rope")
    result = row(FIXTURES, elsewhere, "f32", (AT_1, L2))
    assert [kill.expected for kill in result.kills] == [True, False]  # a module case holds one step alone
    assert not result.located


def test_a_port_that_stops_is_caught_where_it_stops() -> None:
    result = row(FIXTURES, MUTANTS["global-head-dim-ignored"], "f32", (EMBEDDING, L2))
    assert result.kills == (Kill(case=L2, tap=STOPS, expected=True),)
    surprise = dataclasses.replace(MUTANTS["global-head-dim-ignored"], first_tap="self_attn.q_rope")
    assert row(FIXTURES, surprise, "f32", (L2,)).kills == (Kill(case=L2, tap=STOPS, expected=False),)


@pytest.mark.parametrize(
    ("tap", "layers", "case", "expected"),
    [
        ("self_attn.q_rope", "full layers", L2, "model.layers.4.self_attn.q_rope"),
        ("self_attn.q_rope", "every layer", L2, "model.layers.0.self_attn.q_rope"),
        ("self_attn.q_rope", "full layers", FULL, "model.layers.4.self_attn.q_rope"),  # a layer is asked alone
        ("output", "KV-shared layers", L2, "model.layers.5.output"),
        ("output", "the last layer", L2, "model.layers.9.output"),
        ("model.embed_tokens", "every layer", L2, "model.embed_tokens"),
        ("logits", "every layer", L2, "logits"),
        (STOPS, "every layer", L2, STOPS),
        ("self_attn.k_rope", "KV-shared layers", L2, "self_attn.k_rope"),  # shared layers make no keys
        ("router.proj", "every layer", L2, "router.proj"),
        ("self_attn.probs", "sliding layers", L2, "model.layers.0.self_attn.probs"),
        ("self_attn.probs", "sliding layers", L2.replace("no-cache", "tokens"), "model.layers.0.self_attn.context"),
        ("self_attn.probs", "every layer", L1, "model.layers.0.self_attn.context"),  # one key has all the weight
        ("model.ple or self_attn.q_norm", "every layer", L2, "model.ple"),
        ("model.ple or self_attn.q_norm", "every layer", DENSE, "model.layers.0.self_attn.q_norm"),
    ],
)
def test_where_a_mistake_is_first_seen_depends_on_what_is_asked(
    tap: str, layers: str, case: str, expected: str
) -> None:
    mutant = dataclasses.replace(ROPE, first_tap=tap, layers=layers)
    assert expected_taps(FIXTURES, mutant, FIXTURES.case(case))[0] == expected
