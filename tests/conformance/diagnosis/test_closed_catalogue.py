"""The catalogue closed and opened: a known mistake is called by its name, and one that is not known by no name.

Every mutant answers in float32, its products summed in another order than that of the predictions. Its name must come
out; and with the mutant itself taken out of the catalogue, nobody else's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from conformance.adapters.mutant import MutantAdapter
from conformance.adapters.oracle import OracleAdapter
from conformance.diagnosis import nearest
from conformance.diagnosis.evidence import NOTHING, Evidence, Prediction
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from conformance.selftest.called_functions import calling_cases, cases_of
from conformance.selftest.kill_matrix import ORDER
from reference.mutants import MUTANTS
from tests.support.installed import FIXTURES

PROFILE = "f32"
CASES = (
    "module/*",
    "attention/*",
    "layer/*",
    "forward/layout-*",
    "forward/trap-*/uniform-l19/no-cache",
    "forward/*-mini/uniform-l19/no-cache",
    "forward/*-mini/uniform-l19/one-shot",
    "forward/*-mini/uniform-l19/chunks-*",
    "forward/*-mini/uniform-l19/padded*",
    "forward/*-mini/uniform-l19/tokens",
    "forward/*",
)
"""The quickest first: they rule out most mistakes, and a case is put to a port as long as any other is left."""

pytestmark = pytest.mark.slow  # every mutant as a port, beside the predictions of all

REAL = {mutant.id: mutant for mutant in MUTANTS.values() if PROFILE not in mutant.equivalent_in}


class Catalogue:
    """Every mutant as a port, and every mutant's predictions."""

    def __init__(self) -> None:
        self.predictor = nearest.Predictor(FIXTURES, PROFILE)
        self.honest = Judge(FIXTURES, OracleAdapter(ORDER), PROFILE)
        self.ports = {mutant_id: Judge(FIXTURES, MutantAdapter(REAL[mutant_id], ORDER), PROFILE) for mutant_id in REAL}
        self.reach = calling_cases(FIXTURES, PROFILE)
        self.answered: set[str] = set()
        """Ports that failed a case with an answer: the others stopped wherever they failed."""

    def misfits(self) -> dict[str, dict[str, float]]:
        """Mutant -> known mistake -> largest misfit over the cases that were put."""
        worst = {port: dict.fromkeys((nearest.NO_MISTAKE, *REAL), 0.0) for port in REAL}
        for case_id in self.case_ids():
            question = Question.of(FIXTURES, case_id)
            # A mutant that the case does not call answers as the oracle does, and predicts the golden.
            right = Evidence(verdict=self.honest.judge(case_id), golden=question.golden)
            predict = functools.cache(functools.partial(self.prediction, case_id))
            same = self.predict_the_same(case_id)
            left_of_right = _left(right, predict)
            for port, misfits in worst.items():
                alive = [known for known in REAL if misfits[known] < NOTHING]
                if alive == [port] and misfits[nearest.NO_MISTAKE]:  # it failed before, and nothing else explains it
                    continue
                calls = self.calls(port, case_id)
                left = left_of_right
                if calls:
                    evidence = Evidence(verdict=self.ports[port].judge(case_id), golden=question.golden)
                    if evidence.verdict.outcome == "fail":
                        self.answered.add(port)
                    misfits[nearest.NO_MISTAKE] = max(misfits[nearest.NO_MISTAKE], evidence.misfit(question.golden))
                    left = _left(evidence, predict)
                for known in alive:
                    if calls or self.calls(known, case_id):
                        misfits[known] = max(misfits[known], left(same[known]))
        return worst

    def prediction(self, case_id: str, known: str) -> Prediction:
        return self.predictor.predict(REAL[known], case_id)

    def predict_the_same(self, case_id: str) -> dict[str, str]:
        """Known mistake -> itself, or one for all that the case does not call: they predict what the oracle answers."""
        uncalled = {in_f64(known): known for known in REAL if not self.calls(known, case_id)}
        return {known: known if self.calls(known, case_id) else uncalled[in_f64(known)] for known in REAL}

    def calls(self, mutant_id: str, case_id: str) -> bool:
        """Whether the case calls what the mutant replaces."""
        return bool(cases_of(REAL[mutant_id], self.reach, [case_id]))

    def case_ids(self) -> list[str]:
        """Every case once, in the order of the patterns."""
        asked = [case_id for case_id in FIXTURES.case_ids if self.honest.asks(case_id)]
        ordered = (case_id for pattern in CASES for case_id in asked if fnmatchcase(case_id, pattern))
        return list(dict.fromkeys(ordered))


def in_f64(known: str) -> bool:
    """Whether a mistake is predicted in float64, as all are that can be seen in it."""
    return "f64" not in REAL[known].equivalent_in


def _left(evidence: Evidence, predict: Callable[[str], Prediction]) -> Callable[[str], float]:
    """Known mistake -> how much of the evidence it leaves unexplained, computed once."""
    return functools.cache(lambda known: evidence.misfit(predict(known)))


Misfits = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def measured() -> tuple[Misfits, set[str]]:
    catalogue = Catalogue()
    return catalogue.misfits(), catalogue.answered


def test_a_known_mistake_is_named(measured: tuple[Misfits, set[str]]) -> None:
    worst, answered = measured
    recognised = 0
    for port, misfits in worst.items():
        naming = nearest.name(misfits, REAL, FIXTURES.policy, stops=port not in answered)
        assert naming.mutant is None or naming.mutant.id == port
        assert port in (*naming.stops_like, *naming.rivals, naming.mutant.id if naming.mutant else None)
        recognised += naming.mutant is not None or naming.stops_like == (port,)
    assert recognised >= 0.95 * len(REAL)


def test_a_mistake_that_is_not_known_is_given_no_name(measured: tuple[Misfits, set[str]]) -> None:
    worst, answered = measured
    for port, misfits in worst.items():
        others = {known: misfit for known, misfit in misfits.items() if known != port}
        naming = nearest.name(others, REAL, FIXTURES.policy, stops=port not in answered)
        assert naming.mutant is None, f"{port} is called {naming.mutant.id}, which leaves {naming.misfit:.2g}"
