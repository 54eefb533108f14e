"""How well a prediction explains an answer, and when a known mistake is named."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from conformance.adapters.mutant import MutantAdapter
from conformance.diagnosis import nearest
from conformance.diagnosis.evidence import NOTHING, Evidence
from conformance.diagnosis.nearest import NO_MISTAKE, Predictor
from conformance.judging.compare import compare
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from conformance.judging.tolerance import Tolerance
from gemma4_contract import TapSpec
from gemma4_contract.tensors import Array
from reference.mutants import MUTANTS
from tests.support.fakes import Port, parrot, raiser
from tests.support.installed import FIXTURES

Taps = Mapping[str, Array]

CASE = FIXTURES.case("forward/e2b-mini/uniform-l19/no-cache")
POLICY = FIXTURES.policy
F32 = FIXTURES.profile("f32")
RIGHT = np.random.default_rng(0).normal(size=(1, 19, 48))
WRONG = RIGHT + np.random.default_rng(1).normal(size=RIGHT.shape)
OTHER = RIGHT + np.random.default_rng(2).normal(size=RIGHT.shape)
ROUNDED = RIGHT * (1 + 1e-7)
TOLERANCE = Tolerance(rms=1e-6, max=1e-5)
NEARLY = functools.partial(pytest.approx, rel=1e-4)
"""As far as rounding is allowed for: errors here are a hundred thousand times the tolerance."""


def spec_of(name: str, golden: Array) -> TapSpec:
    return TapSpec(
        name=name, parents=[], axes=["B", "L", "D"], dtype="F32", shape=list(golden.shape), sha256="0" * 64, cls="floor"
    )


def evidence(answer: Taps, golden: Taps, *, valid: Array | None = None, tolerance: Tolerance = TOLERANCE) -> Evidence:
    """The verdict on an answer."""
    taps = tuple(
        compare(spec_of(name, x), answer.get(name), x, profile=F32, valid=valid, allowed=tolerance)
        for name, x in golden.items()
    )
    outcome = "fail" if any(tap.status == "fail" for tap in taps) else "pass"
    return Evidence(verdict=CaseVerdict(case=CASE, outcome=outcome, taps=taps, answer=answer), golden=golden)


def misfit(answer: Array, prediction: Array, *, golden: Array = RIGHT, valid: Array | None = None) -> float:
    """The misfit at one tap."""
    return evidence({"y": answer}, {"y": golden}, valid=valid).misfit({"y": prediction})


# A failure


def test_the_answer_itself_explains_it_all() -> None:
    assert misfit(WRONG, WRONG) == 0


def test_an_implementation_without_a_mistake_explains_nothing() -> None:
    assert misfit(WRONG, RIGHT) == NEARLY(1)


def test_half_of_the_error_explains_half_of_it() -> None:
    assert misfit(WRONG, (RIGHT + WRONG) / 2) == NEARLY(0.5)


def test_another_mistake_contradicts() -> None:
    assert misfit(WRONG, 2 * RIGHT - WRONG) == NEARLY(2)
    assert misfit(WRONG, OTHER) > 1.2


def test_what_rounding_may_do_is_not_left_unexplained() -> None:
    assert misfit(WRONG.astype(np.float32), WRONG) == 0
    assert 0 < misfit(WRONG.astype(np.float16).astype(np.float32), WRONG) < 1e-3


def test_less_is_unexplained_of_an_error_near_the_tolerance() -> None:
    """Half of it may be rounding: the golden itself leaves no more than the other half."""
    assert misfit(RIGHT * (1 + 2e-6), RIGHT) == pytest.approx(0.5)


LOUD = RIGHT.copy()
LOUD[0, 3, 3] += 0.1
WIDE = Tolerance(rms=1e-2, max=1e-2)
"""One number is out of place in LOUD: too far for its maximum, and not for its RMS error."""


def test_an_error_of_one_number_is_explained_by_that_number_alone() -> None:
    found = evidence({"y": LOUD}, {"y": RIGHT}, tolerance=WIDE)
    error = found.verdict.taps[0].error
    assert error is not None
    assert error.rms < WIDE.rms
    assert error.max > WIDE.max
    assert found.misfit({"y": LOUD}) == 0
    assert found.misfit({"y": RIGHT}) > 0.5


# What passes speaks too


def test_a_tap_that_passes_is_explained_by_all_that_pass_there() -> None:
    assert misfit(ROUNDED, RIGHT) == 0
    assert misfit(ROUNDED, RIGHT * (1 - 5e-7)) == 0


@pytest.mark.parametrize("answer", [RIGHT, ROUNDED])
def test_a_mistake_that_would_have_failed_where_the_port_passes_is_not_the_port_s(answer: Array) -> None:
    assert misfit(answer, WRONG) > 1000
    assert misfit(answer, RIGHT * (1 + 3e-6)) > 1


def test_a_mistake_that_would_have_failed_by_one_number_contradicts_too() -> None:
    assert evidence({"y": RIGHT}, {"y": RIGHT}, tolerance=WIDE).misfit({"y": LOUD}) > 1


def test_a_golden_of_zeros_is_met_exactly_or_not_at_all() -> None:
    zeros = np.zeros_like(RIGHT)
    assert misfit(zeros, zeros, golden=zeros) == 0
    assert misfit(zeros, RIGHT, golden=zeros) == math.inf


def test_the_worst_tap_counts() -> None:
    found = evidence({"a": WRONG, "b": WRONG, "c": RIGHT}, {"a": RIGHT, "b": RIGHT, "c": RIGHT})
    assert found.misfit({"a": WRONG, "b": (RIGHT + WRONG) / 2, "c": RIGHT}) == NEARLY(0.5)
    assert found.misfit({"a": WRONG, "b": WRONG, "c": WRONG}) > 1000
    assert found.misfit({"a": WRONG, "b": WRONG, "c": RIGHT}) == 0


def test_a_tap_of_class_advice_is_not_compared_and_says_nothing() -> None:
    case = "module/mlp/overflow"
    port = parrot(FIXTURES, lambda taps: {name: x.astype(np.float32) for name, x in taps.items()})
    verdict = Judge(FIXTURES, port, "f16").judge(case)
    assert verdict.outcome == "pass"
    golden = FIXTURES.golden(FIXTURES.case(case))
    assert Evidence(verdict=verdict, golden=golden).misfit({"act": golden["act"] * np.inf, "y": golden["y"]}) == 0


# What one of the two lacks


def test_taps_that_one_of_the_two_lacks_say_nothing() -> None:
    found = evidence({"a": WRONG}, {"a": RIGHT, "b": RIGHT})
    assert found.misfit({"a": WRONG, "b": OTHER}) == 0  # the port does not offer b
    found = evidence({"a": WRONG, "b": OTHER}, {"a": RIGHT, "b": RIGHT})
    assert found.misfit({"a": WRONG}) == 0  # nor does the prediction


def test_without_a_tap_in_common_nothing_is_explained() -> None:
    assert evidence({"a": WRONG}, {"a": RIGHT}).misfit({"b": WRONG}) == math.inf
    assert evidence({"a": WRONG}, {"a": RIGHT}).misfit({}) == math.inf


def test_an_answer_that_lacks_what_is_required_is_explained_by_no_numbers() -> None:
    verdict = Judge(FIXTURES, parrot(FIXTURES, lambda _: {}), "f32").judge(CASE.id)
    assert verdict.outcome == "fail"
    golden = FIXTURES.golden(CASE)
    assert Evidence(verdict=verdict, golden=golden).misfit(golden) == math.inf


# Shapes, dtypes, NaN


def test_a_wrong_shape_is_explained_by_the_same_shape_alone() -> None:
    assert misfit(WRONG[:, 1:], WRONG[:, 1:]) == 0
    for prediction in (RIGHT, WRONG, WRONG[:, 2:]):
        assert misfit(WRONG[:, 1:], prediction) == math.inf
    assert misfit(WRONG, WRONG[:, 1:]) == math.inf


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_a_wrong_dtype_is_explained_by_the_same_dtype_alone(dtype: str) -> None:
    answer = WRONG.astype(dtype)
    assert misfit(answer, answer.astype(np.float64)) == math.inf
    assert misfit(answer, answer) == 0  # a mistake that gives this dtype
    right = np.rint(RIGHT)
    assert misfit(right.astype(dtype), right, golden=right) == math.inf


def with_nan(x: Array, where: tuple[Any, ...]) -> Array:
    copy = x.copy()
    copy[where] = np.nan
    return copy


def test_nan_is_explained_by_nan_at_the_same_places() -> None:
    answer = with_nan(WRONG, (0, 3))
    assert misfit(answer, answer) == 0
    assert misfit(answer, with_nan(RIGHT, (0, 3))) == NEARLY(1)
    for prediction in (WRONG, with_nan(WRONG, (0, 4)), with_nan(WRONG, (0, [3, 4]))):
        assert misfit(answer, prediction) == math.inf
    assert misfit(WRONG, answer) == math.inf


def test_an_answer_of_nan_alone_is_explained_by_nan_alone() -> None:
    nothing = np.full_like(RIGHT, np.nan)
    assert misfit(nothing, nothing) == 0
    assert misfit(nothing, WRONG) == math.inf


def test_pads_say_nothing() -> None:
    valid = np.ones(RIGHT.shape, bool)
    valid[:, :5] = False
    answer = WRONG.copy()
    answer[:, :5] = 1e9
    assert misfit(answer, with_nan(WRONG, (0, 0)), valid=valid) == 0
    assert misfit(answer, RIGHT, valid=valid) == NEARLY(1)
    assert misfit(answer, WRONG) > 1  # were they no pads


# Ports that stop


def test_a_port_that_raises_is_explained_by_one_that_does() -> None:
    verdict = Judge(FIXTURES, raiser(ValueError("bad luck")), "f32").judge(CASE.id)
    stopped = Evidence(verdict=verdict, golden={"y": RIGHT})
    assert stopped.misfit(None) == 0
    assert stopped.misfit({"y": WRONG}) == math.inf
    assert evidence({"y": WRONG}, {"y": RIGHT}).misfit(None) == math.inf
    assert evidence({"y": RIGHT}, {"y": RIGHT}).misfit(None) == math.inf


# Predictions


def test_a_prediction_is_the_mutant_s_answer_in_float64() -> None:
    predicted = Predictor(FIXTURES, "bf16").predict(MUTANTS["embed-scale-missing"], CASE.id)
    assert predicted is not None
    embedded = FIXTURES.golden(CASE)["model.embed_tokens"]
    assert predicted["model.embed_tokens"].dtype == np.float64
    assert np.allclose(predicted["model.embed_tokens"], embedded / math.sqrt(48), rtol=1e-6)


def test_a_mistake_that_float64_cannot_show_is_predicted_in_the_arithmetic_of_the_run() -> None:
    predicted = Predictor(FIXTURES, "bf16").predict(MUTANTS["rmsnorm-in-low-precision"], CASE.id)
    assert predicted is not None
    assert predicted["model.norm"].dtype.name == "bfloat16"


def test_a_case_of_one_profile_is_predicted_in_it() -> None:
    case = "module/embedding/rounded-scale-bf16"
    predicted = Predictor(FIXTURES, "bf16").predict(MUTANTS["embed-scale-missing"], case)
    assert predicted is not None
    assert predicted["y"].dtype.name == "bfloat16"


def test_a_mistake_that_stops_a_port_predicts_no_answer() -> None:
    predictor = Predictor(FIXTURES, "f32")
    assert predictor.predict(MUTANTS["global-head-dim-ignored"], CASE.id) is None
    assert predictor.predict(MUTANTS["global-head-dim-ignored"], "module/softcap/cap-30") is not None


# From evidence to a name

FEW = {name: MUTANTS[name] for name in ("gelu-erf", "gelu-silu", "softcap-missing", "embed-scale-missing")}


def misfits_of(port: Any, *cases: str, catalogue: Mapping[str, Any] = FEW) -> Mapping[str, float]:
    judge = Judge(FIXTURES, port, "f32")
    items = [Evidence(verdict=judge.judge(case), golden=Question.of(FIXTURES, case).golden) for case in cases]
    return nearest.misfits(Predictor(FIXTURES, "f32"), items, catalogue)


def test_every_known_mistake_is_told_from_the_others() -> None:
    for name, mutant in FEW.items():
        worst = misfits_of(MutantAdapter(mutant, "split"), CASE.id)
        assert worst[name] < 1e-2, name
        assert min(misfit for other, misfit in worst.items() if other != name) > NOTHING, name
        assert nearest.name(worst, FEW, POLICY).mutant is mutant


def test_an_honest_answer_clears_the_mistakes_that_it_would_have_shown() -> None:
    """The MLP is right, so it is not the GELU; the other two cannot be seen in it."""
    worst = misfits_of(parrot(FIXTURES), "module/mlp/dense", catalogue=FEW)
    assert worst["gelu-erf"] > 1
    assert worst["gelu-silu"] > 1
    assert worst["softcap-missing"] == worst["embed-scale-missing"] == 0


def test_a_mistake_that_explains_nothing_is_followed_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[tuple[str, str]] = []
    right = Predictor.predict

    def predict(self: Predictor, mutant: Any, case_id: str) -> Any:
        followed.append((mutant.id, case_id))
        return right(self, mutant, case_id)

    monkeypatch.setattr(Predictor, "predict", predict)
    misfits_of(MutantAdapter(MUTANTS["softcap-missing"]), "module/softcap/cap-30", CASE.id)
    assert [name for name, case in followed if case != CASE.id] == list(FEW)
    assert [name for name, case in followed if case == CASE.id] == ["softcap-missing"]


A, B, C = list(MUTANTS.values())[:3]
CATALOGUE = {"a": A, "b": B, "c": C}


def named(worst: Mapping[str, float], to_explain: float = 1.0) -> nearest.Naming:
    return nearest.name({NO_MISTAKE: to_explain, **worst}, {name: CATALOGUE[name] for name in worst}, POLICY)


def test_the_policy_of_naming() -> None:
    """The tests below hold for these."""
    assert (POLICY.diagnosis_misfit, POLICY.diagnosis_lead) == (0.5, 2)


@pytest.mark.parametrize(
    ("worst", "mutant", "rivals"),
    [
        ({"a": 0.0, "b": 1.0}, A, ()),
        ({"a": 1.0, "b": 0.1}, B, ()),
        ({"a": 0.49, "b": 0.98, "c": math.inf}, A, ()),
        ({"a": 0.49, "b": 0.97}, None, ("a", "b")),  # the lead is too small
        ({"a": 0.5, "b": 1.0}, None, ()),  # too much is left unexplained
        ({"a": 0.0, "b": 0.49}, None, ("a", "b")),  # it leads, but the other explains it as well
        ({"a": 0.1, "b": 0.0, "c": 0.2}, None, ("a", "b", "c")),
        ({"a": 0.0, "b": 0.0, "c": 0.5}, None, ("a", "b")),
        ({"a": 1.0, "b": math.inf}, None, ()),
        ({"a": math.inf}, None, ()),
        ({"a": math.nan}, None, ()),
        ({"a": 0.2}, A, ()),
    ],
)
def test_a_mistake_is_named_only_if_it_explains_enough_and_leads(
    worst: dict[str, float], mutant: Any, rivals: tuple[str, ...]
) -> None:
    for to_explain in (1.0, 7.0, math.inf):
        naming = named(worst, to_explain)
        assert naming.mutant is mutant
        assert naming.rivals == rivals
        assert naming.misfit == pytest.approx(min(worst.values()), nan_ok=True)


def test_where_little_is_to_be_explained_little_may_be_left() -> None:
    assert named({"a": 0.09, "b": 0.9}, 0.2).mutant is A
    assert named({"a": 0.11, "b": 0.9}, 0.2).mutant is None


def test_where_nothing_is_to_be_explained_nothing_is_named() -> None:
    """A run that fails by a figure of the whole model alone: every tap passes."""
    naming = named({"a": 0.0, "b": 0.9}, 0.0)
    assert (naming.mutant, naming.rivals) == (None, ())


def test_an_empty_catalogue_names_nothing() -> None:
    naming = named({})
    assert (naming.mutant, naming.misfit, naming.rivals) == (None, math.inf, ())


def test_a_mistake_of_nobody_s_is_unknown() -> None:
    """Doubled outputs of layer 0 are in no catalogue of these."""

    def answer(request: Any) -> dict[str, Array]:
        taps = {name: np.array(x) for name, x in FIXTURES.golden(FIXTURES.case(request.case)).items()}
        taps["model.layers.0.mlp.act"] = taps["model.layers.0.mlp.act"][..., ::-1].copy()
        return taps

    worst = misfits_of(Port(answer), CASE.id)
    assert nearest.name(worst, FEW, POLICY).mutant is None


@pytest.mark.parametrize("worst", [{"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 0.0, "c": 1.0}])
def test_a_port_that_stops_gets_a_hint_and_no_name(worst: dict[str, float]) -> None:
    naming = nearest.name({NO_MISTAKE: 1.0, **worst}, {"a": A, "b": B, "c": A}, POLICY, stops=True)
    assert (naming.mutant, naming.rivals) == (None, ())
    assert naming.stops_like == tuple(known for known, misfit in worst.items() if misfit == 0)
