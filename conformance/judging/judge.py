"""Judges one case of one implementation: request, answer, verdict."""

from __future__ import annotations

import functools
import traceback
from pathlib import Path

import numpy as np

from conformance.adapters.base import Adapter, Hello, PortFault, Skip
from conformance.judging.examine import CaseVerdict, Examiner, Local
from conformance.judging.question import Question
from gemma4_contract import Fixtures
from gemma4_contract.tensors import Array


class Judge:
    """Judges an implementation in one profile against one set of fixtures; with `local` by its own taps too."""

    def __init__(self, fixtures: Fixtures, adapter: Adapter, profile: str, local: Local | None = None) -> None:
        self.fixtures = fixtures
        self.adapter = adapter
        self.profile = profile
        self._examiner = Examiner(fixtures, profile, local)
        self._sound_models: set[str] = set()

    @functools.cached_property
    def _hello(self) -> Hello:
        return self.adapter.hello()

    def asks(self, case_id: str) -> bool:
        """Whether the case is asked in this profile."""
        profiles = self.fixtures.case(case_id).profiles
        return not profiles or self.profile in profiles

    def judge(self, case_id: str, tokens: int | None = None) -> CaseVerdict:
        """Ask the implementation a case, or its first `tokens` tokens; FixtureError for a faulty fixture."""
        if not self.asks(case_id):
            case = self.fixtures.case(case_id)
            return CaseVerdict(case=case, outcome="skip", note=f"asked in {', '.join(case.profiles)} only")
        question = Question.of(self.fixtures, case_id)
        question = question if tokens is None else question.shortened(tokens)
        case, request = question.case, question.request(self.profile)
        if case.model and case.model not in self._sound_models:
            self.fixtures.check_model(case.model)  # a damaged file is not the port's fault
            self._sound_models.add(case.model)
        try:
            if not self._hello.offers_kind(request.kind):
                raise Skip(f"no kind {request.kind}")
            answer = checked_answer(self.adapter.run(request))
        except Skip as skip:
            return CaseVerdict(case=case, outcome="skip", note=str(skip))
        except Exception as error:  # the port's fault, whatever it is
            return CaseVerdict(case=case, outcome="error", note=crash_line(error))
        return self._examiner.examine(question, answer)


def checked_answer(answer: object) -> dict[str, Array]:
    """The answer, if it is a dict of NumPy arrays; otherwise TypeError with what it is."""
    if not isinstance(answer, dict):
        raise TypeError(f"got {type(answer).__name__} as answer, expected a dict of tap name to numpy.ndarray")
    for name, value in answer.items():
        if not isinstance(value, np.ndarray):
            raise TypeError(f"got {type(value).__name__} for tap {name}, expected numpy.ndarray")
    return answer


def crash_line(error: Exception) -> str:
    """An implementation's exception in one line, with the line of code that raised it."""
    if isinstance(error, PortFault):  # of another process: its message is already one line
        return " ".join(str(error).split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return " ".join(f"the implementation raised {type(error).__name__}: {error} ({where})".split())
