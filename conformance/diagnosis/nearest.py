"""The nearest known mistake: its prediction explains all answers, also those that pass."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conformance.adapters.mutant import MutantAdapter
from conformance.diagnosis.evidence import NOTHING, Evidence, Prediction
from conformance.judging.question import Question
from gemma4_contract import Case, Fixtures, Policy
from reference.mutants.mutant import Mutant

NO_MISTAKE = "(no mistake)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The recognised mistake, or None; `rivals` are mistakes that fit about as well as the best.

    A port that stops shows no numbers: `stops_like` are the mistakes that stop a port in exactly these cases, a
    hint and no diagnosis.
    """

    mutant: Mutant | None
    misfit: float
    rivals: tuple[str, ...] = ()
    stops_like: tuple[str, ...] = ()


class Predictor:
    """Predicts the answers of known mistakes, in float64 unless a mistake does not show in it."""

    def __init__(self, fixtures: Fixtures, profile: str) -> None:
        self.profile = profile
        self._adapters: dict[str, MutantAdapter] = {}
        # All mistakes answer a case before the next one, so that its files are read once.
        self._question = functools.lru_cache(maxsize=1)(functools.partial(Question.of, fixtures))

    def predict(self, mutant: Mutant, case_id: str) -> Prediction:
        """The mutant's taps, or None where it raises."""
        adapter = self._adapters.setdefault(mutant.id, MutantAdapter(mutant))
        question = self._question(case_id)
        request = question.request(self._arithmetic(mutant, question.case))
        try:
            return adapter.run(request)
        except Exception:  # some mistakes make a port raise, each in its own way
            return None

    def _arithmetic(self, mutant: Mutant, case: Case) -> str:
        """float64, except for a mistake that float64 cannot show and for a case that only the run's profile has."""
        alone = case.profiles == [self.profile]
        return self.profile if alone or "f64" in mutant.equivalent_in else "f64"


def misfits(predictor: Predictor, evidence: Iterable[Evidence], catalogue: Mapping[str, Mutant]) -> Mapping[str, float]:
    """Largest misfit of every known mistake over all evidence; one that explains nothing is dropped.

    The key NO_MISTAKE has the misfit of the goldens themselves: how much there is to explain.
    """
    worst = dict.fromkeys((NO_MISTAKE, *catalogue), 0.0)
    for item in evidence:
        worst[NO_MISTAKE] = max(worst[NO_MISTAKE], item.misfit(item.golden))
        alive = [mutant_id for mutant_id in catalogue if worst[mutant_id] < NOTHING]
        for mutant_id in alive:
            prediction = predictor.predict(catalogue[mutant_id], item.verdict.case.id)
            worst[mutant_id] = max(worst[mutant_id], item.misfit(prediction))
    return worst


def name(worst: Mapping[str, float], catalogue: Mapping[str, Mutant], policy: Policy, *, stops: bool = False) -> Naming:
    """Name the best mistake only if it leaves little unexplained and is clearly better than the next.

    `stops` says that every failed case failed without an answer.
    """
    known = {mutant_id: misfit for mutant_id, misfit in worst.items() if mutant_id in catalogue}
    if not known:
        return Naming(mutant=None, misfit=math.inf)
    best = min(known, key=lambda mutant_id: known[mutant_id])
    misfit, little = known[best], policy.diagnosis_misfit * min(worst[NO_MISTAKE], 1.0)
    if not misfit < little:
        return Naming(mutant=None, misfit=misfit)
    fitting = tuple(other for other in known if known[other] < max(little, policy.diagnosis_lead * misfit))
    if stops:
        return Naming(mutant=None, misfit=misfit, stops_like=fitting)
    if len(fitting) > 1:
        return Naming(mutant=None, misfit=misfit, rivals=fitting)
    return Naming(mutant=catalogue[best], misfit=misfit)
