"""Makes verdicts again from a report, or from a file of answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from conformance.judging import prompts
from conformance.judging.compare import Error, TapVerdict
from conformance.judging.examine import CaseVerdict, Examiner
from conformance.judging.question import Question
from conformance.judging.tolerance import Tolerance
from conformance.reporting import jsonl as report
from conformance.reporting.jsonl import CaseLine, LocalLine, RunLine
from gemma4_contract import FixtureError, Fixtures, tensors
from gemma4_contract.judged import judged_digest

_WRONG = ("fail", "error")


def verdicts_of_report(fixtures: Fixtures, path: Path) -> tuple[RunLine, list[CaseVerdict]]:
    """The run and its verdicts on tensors, without known failures; without their taps if nothing failed.

    FixtureError for a broken report or other fixtures.
    """
    run, lines = report.read(path)
    digest = judged_digest(fixtures)
    if run.fixtures != digest:
        raise FixtureError(
            path,
            got=f"a report on other fixtures ({run.fixtures[:12]}...)",
            expected=f"these ({digest[:12]}...)",
            cure="name the fixtures of the run with --fixtures-dir, or run again",
        )
    directory = path if path.is_dir() else path.parent
    examiner = Examiner(fixtures, run.profile)
    judged = [line for line in lines.values() if line.expected is None and line.kind != prompts.KIND]
    if not any(line.outcome in _WRONG for line in judged):  # passing cases are evidence only if something fails
        return run, [
            CaseVerdict(case=fixtures.case(line.case), outcome=line.outcome, note=line.note) for line in judged
        ]
    return run, [_verdict(fixtures, examiner, directory, line) for line in judged]


def wrong_prompts(path: Path) -> list[CaseLine]:
    """The lines of a report on wrong prompts, without known failures."""
    _, lines = report.read(path)
    wrong = (line for line in lines.values() if line.kind == prompts.KIND and line.outcome in _WRONG)
    return [line for line in wrong if line.expected is None]


def verdict_of_dump(fixtures: Fixtures, profile: str, case_id: str, path: Path) -> CaseVerdict:
    """The verdict on a safetensors file with the answer to one case; other tensors in the file are not read."""
    question, stored = Question.of(fixtures, case_id), tensors.read_lazily(path)
    answer = {name: stored[name].whole() for name in question.golden if name in stored}
    return Examiner(fixtures, profile).examine(question, answer)


def _verdict(fixtures: Fixtures, examiner: Examiner, directory: Path, line: CaseLine) -> CaseVerdict:
    question = Question.of(fixtures, line.case)
    if line.answer is not None:
        answer = directory / line.answer
        if not answer.resolve().is_relative_to(directory.resolve()):
            raise FixtureError(answer, got="a file outside the report", expected="one inside", cure="run again")
        verdict = examiner.examine(question, tensors.read(answer))
        faults = {tap.name: tap.fault for tap in line.taps if tap.status == "fail"}
        taps = tuple(_with_stored_fault(tap, faults) for tap in verdict.taps)
        local = tuple(_local(tap.name, tap.local) for tap in line.taps if tap.local)
        return replace(verdict, outcome=line.outcome, note=line.note, taps=taps, local=local)
    if line.outcome == "pass":  # the golden itself stands for an answer that passed
        offered: Mapping[str, object] = {tap.name: tap for tap in line.taps}
        golden = {name: x for name, x in question.golden.items() if name in offered}
        if examiner.profile == "f64":  # goldens of whole passes are float32, answers in f64 are not
            golden = {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in golden.items()}
        return examiner.examine(question, golden)
    return CaseVerdict(case=question.case, outcome=line.outcome, note=line.note)


def _local(name: str, line: LocalLine) -> TapVerdict:
    """A local verdict as the report tells it: of its error only the ratio is known."""
    ratio = math.inf if line.ratio is None else line.ratio
    error, one = Error(rms=ratio, max=ratio, worst=()), Tolerance(rms=1.0, max=1.0)
    return TapVerdict(name=name, status=line.status, fault=line.fault, error=error, tolerance=one, through=line.through)


def _with_stored_fault(tap: TapVerdict, faults: Mapping[str, str]) -> TapVerdict:
    """A tap as the run judged it: an answer in a dtype that safetensors lacks is stored in another, or not at all."""
    failed_only_there = tap.name in faults and tap.status != "fail"
    return replace(tap, status="fail", fault=faults[tap.name], error=None) if failed_only_there else tap
