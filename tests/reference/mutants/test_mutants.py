"""The catalogue of known mistakes: complete, well written, and gone when its context ends."""

from __future__ import annotations

import pkgutil
import re

import numpy as np
import pytest

from gemma4_contract import Fixtures
from gemma4_contract.checkpoint import read_config
from reference.config import TextConfig
from reference.mutants import _AREAS, MUTANTS
from reference.mutants.mutant import LAYERS, STOPS, Mutant, replaced
from reference.oracle import answers, rope
from reference.oracle.arithmetic import F64
from reference.taps import model_taps

FIXTURES = Fixtures()
PROFILES = {"f64", "f32", "bf16", "f16"}
AREAS = {
    "RoPE",
    "masks",
    "attention",
    "keys and values",
    "KV sharing",
    "cache and decoding",
    "PLE",
    "norms",
    "layer scalar",
    "embedding",
    "MLP",
    "router",
    "experts",
    "logits",
    "configuration",
    "weight loading",
}
EVERY = pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)


def test_the_catalogue_covers_every_area() -> None:
    assert {mutant.area for mutant in MUTANTS.values()} == AREAS
    assert len(MUTANTS) >= 80


def test_no_id_was_given_twice() -> None:
    assert sum(len(module.AREA.mutants) for module in _AREAS) == len(MUTANTS)


@EVERY
def test_a_mutant_is_written_for_people(mutant: Mutant) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", mutant.id)
    assert mutant.does[0].isupper()
    for sentence in (
        mutant.does,
        mutant.symptom,
        mutant.cure,
        *mutant.equivalent_in.values(),
        *mutant.survives_in.values(),
    ):
        assert re.fullmatch(r"\S.{10,}[.]", sentence), sentence
    for link in mutant.links:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+(#\d+|@[0-9a-f]{7,40})", link), link


@EVERY
def test_profiles_are_named_once(mutant: Mutant) -> None:
    assert set(mutant.equivalent_in) <= PROFILES
    assert set(mutant.survives_in) <= PROFILES - set(mutant.equivalent_in)


@EVERY
def test_the_first_tap_is_one_of_some_model_or_case(mutant: Mutant) -> None:
    assert mutant.layers in LAYERS
    if mutant.first_tap == STOPS:
        return
    known = {tap.name for model in models() for tap in model_taps(model)}
    if mutant.layers == "module cases":
        assert mutant.first_tap in {tap.name for case in FIXTURES.cases() for tap in FIXTURES.owner(case).taps} - known
    else:
        assert any(mutant.first_taps(model) & known for model in models())


def models() -> list[TextConfig]:
    return [
        TextConfig.from_dict(read_config(FIXTURES.model_dir(name)))
        for name in ("e2b-mini", "12b-mini", "26b-a4b-mini", "trap-irregular")
    ]


@EVERY
def test_the_right_function_is_back_when_the_context_ends(mutant: Mutant) -> None:
    path, _, attribute = mutant.replaces.rpartition(".")
    owner = owner_of(path)
    before = owner.__dict__[attribute]
    with mutant.applied():
        assert owner.__dict__[attribute] is not before
    assert owner.__dict__[attribute] is before
    with pytest.raises(KeyboardInterrupt), mutant.applied():
        raise KeyboardInterrupt
    assert owner.__dict__[attribute] is before


def owner_of(path: str) -> object:
    return pkgutil.resolve_name(path if path.startswith("gemma4_contract.") else f"reference.{path}")


def test_a_replaced_function_gets_the_right_one() -> None:
    x, positions = np.ones((1, 1, 1, 4)), np.array([[1]])
    frequencies = np.array([1.0, 0.0])
    right = rope.rotate(x, positions, frequencies)
    with replaced("oracle.rope.rotate", lambda rotate: lambda *args: 2 * rotate(*args)):
        np.testing.assert_array_equal(rope.rotate(x, positions, frequencies), 2 * right)
    np.testing.assert_array_equal(rope.rotate(x, positions, frequencies), right)


def test_a_link_is_an_issue_or_a_commit() -> None:
    mutant = MUTANTS["prop-rope-denominator"]
    assert "https://github.com/ml-explore/mlx-lm/commit/fa74caa8" in mutant.urls
    assert "https://github.com/kekzl/imp/issues/9" in mutant.urls


def test_a_mutant_changes_the_answer_and_leaves_it_right_after() -> None:
    case = FIXTURES.case("module/softcap/cap-30")
    x = FIXTURES.inputs(case)
    right = answers.module("softcap", case.params, x, F64)["y"]
    with MUTANTS["softcap-missing"].applied():
        assert np.abs(answers.module("softcap", case.params, x, F64)["y"] - right).max() > 1
    np.testing.assert_array_equal(answers.module("softcap", case.params, x, F64)["y"], right)


@EVERY
def test_a_mutant_is_hunted_by_a_case(mutant: Mutant) -> None:
    if PROFILES - set(mutant.equivalent_in) - set(mutant.survives_in):
        assert any(mutant.id in case.hunts for case in FIXTURES.cases())


def test_what_a_case_hunts_is_a_known_mistake() -> None:
    unknown = {(case.id, bug) for case in FIXTURES.cases() for bug in case.hunts if bug not in MUTANTS}
    assert unknown == set()
