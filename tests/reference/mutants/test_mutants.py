"""The catalogue of known mistakes: complete, well written, and beside the right oracle without touching it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from conformance.adapters.mutant import MutantAdapter
from conformance.adapters.oracle import OracleAdapter
from conformance.judging.question import Question
from gemma4_contract.checkpoint import read_config
from reference import mutants
from reference.config import TextConfig
from reference.loading import Loader
from reference.mutants import AREAS, MUTANTS
from reference.mutants.mutant import LAYERS, STOPS, Mutant
from reference.oracle import answers
from reference.oracle.arithmetic import F64
from reference.oracle.decoder import Decoder
from reference.oracle.ops import Ops
from reference.oracle.oracle import ORACLE, Oracle
from reference.taps import model_taps
from tests.support.installed import FIXTURES

PROFILES = {"f64", "f32", "bf16", "f16"}
NAMES = {
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
    assert {mutant.area for mutant in MUTANTS.values()} >= NAMES
    assert len(MUTANTS) >= 80


def test_no_id_was_given_twice() -> None:
    assert sum(len(area.mutants) for area in AREAS) == len(MUTANTS)


def test_every_file_with_an_area_is_listed_once_in_its_place() -> None:
    files = [file for file in Path(mutants.__file__).parent.glob("*.py") if "\nAREA = " in file.read_text("utf-8")]
    assert len(AREAS) == len(files) >= 19
    places = [area.place for area in AREAS]
    assert places == sorted(set(places))


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
def test_a_mutant_replaces_functions_of_one_class_alone(mutant: Mutant) -> None:
    parts = ((mutant.oracle.ops, Ops), (mutant.oracle.decoder, Decoder))
    parts += ((mutant.oracle.config, TextConfig), (mutant.oracle.loader, Loader))
    ((wrong, right),) = [(mine, right) for mine, right in parts if mine is not right]
    assert wrong is mutant.wrong
    assert mutant.replaces
    for name in mutant.replaces:
        owner, function = name.split(".")
        assert owner == right.__name__
        assert function == "__init__" or not function.startswith("_"), name
        assert getattr(wrong, function) is not getattr(right, function), name


def test_a_replaced_function_gets_the_right_one() -> None:
    class Twice(Ops):
        def softcap(self, x: np.ndarray, cap: float) -> np.ndarray:
            return 2 * super().softcap(x, cap)

    x = {"x": np.array([1.0, -40.0])}
    right = answers.module("softcap", {"cap": 30.0}, x, F64)["y"]
    wrong = answers.module("softcap", {"cap": 30.0}, x, F64, Oracle(ops=Twice))["y"]
    np.testing.assert_array_equal(wrong, 2 * right)
    np.testing.assert_array_equal(answers.module("softcap", {"cap": 30.0}, x, F64)["y"], right)


def test_a_wrong_function_is_what_the_other_functions_call() -> None:
    class Zero(Ops):
        def gelu_tanh(self, x: np.ndarray) -> np.ndarray:
            return np.zeros_like(x)

    case = FIXTURES.case("module/experts/fused")
    x = FIXTURES.inputs(case)
    assert answers.module("experts", case.params, x, F64)["y"].any()
    assert not answers.module("experts", case.params, x, F64, Oracle(ops=Zero))["y"].any()


ANSWERING: dict[str, Callable[[], OracleAdapter | MutantAdapter]] = {
    "the right oracle": OracleAdapter,
    "of Ops": lambda: MutantAdapter(MUTANTS["rmsnorm-plus-one"]),
    "of Decoder": lambda: MutantAdapter(MUTANTS["ple-chunk-not-sliced"]),
    "of TextConfig": lambda: MutantAdapter(MUTANTS["rope-single-theta"]),
    "of Loader": lambda: MutantAdapter(MUTANTS["norm-weights-shifted"]),
}
ASKED = tuple(f"forward/e2b-mini/uniform-l9/{plan}" for plan in ("no-cache", "chunks-5", "tokens"))


def digest(adapter: OracleAdapter | MutantAdapter, case_id: str) -> str:
    answer = adapter.run(Question.of(FIXTURES, case_id).request("f32"))
    return hashlib.sha256(b"".join(answer[tap].tobytes() for tap in sorted(answer))).hexdigest()


@pytest.mark.slow
def test_mutants_and_the_right_oracle_live_side_by_side() -> None:
    """In turns, and in threads, each answers as it does alone."""
    alone = {(who, case): digest(make(), case) for who, make in ANSWERING.items() for case in ASKED}
    assert len(set(alone.values())) > len(ANSWERING)  # each of the five has answers of its own
    adapters = {who: make() for who, make in ANSWERING.items()}
    turns = [(who, case) for case in ASKED for who in ANSWERING]
    assert {turn: digest(adapters[turn[0]], turn[1]) for turn in turns} == alone
    with ThreadPoolExecutor(len(ANSWERING)) as pool:
        for _ in range(3):
            threads = {turn: pool.submit(digest, adapters[turn[0]], turn[1]) for turn in turns}
            assert {turn: thread.result() for turn, thread in threads.items()} == alone


def test_a_link_is_an_issue_or_a_commit() -> None:
    mutant = MUTANTS["prop-rope-denominator"]
    assert "https://github.com/ml-explore/mlx-lm/commit/fa74caa8" in mutant.urls
    assert "https://github.com/kekzl/imp/issues/9" in mutant.urls


def test_a_mutant_changes_the_answer_and_leaves_it_right_after() -> None:
    case = FIXTURES.case("module/softcap/cap-30")
    x = FIXTURES.inputs(case)
    right = answers.module("softcap", case.params, x, F64)["y"]
    wrong = answers.module("softcap", case.params, x, F64, MUTANTS["softcap-missing"].oracle)["y"]
    assert np.abs(wrong - right).max() > 1
    np.testing.assert_array_equal(answers.module("softcap", case.params, x, F64, ORACLE)["y"], right)


@EVERY
def test_a_mutant_is_hunted_by_a_case(mutant: Mutant) -> None:
    if PROFILES - set(mutant.equivalent_in) - set(mutant.survives_in):
        assert any(mutant.id in case.hunts for case in FIXTURES.cases())


def test_what_a_case_hunts_is_a_known_mistake() -> None:
    unknown = {(case.id, bug) for case in FIXTURES.cases() for bug in case.hunts if bug not in MUTANTS}
    assert unknown == set()
