"""A known mistake, a catalogue of three, and reports and dumps of a port, for tests of `diagnose` and `bugs`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.adapters.mutant import MutantAdapter
from conformance.judging.judge import Judge
from conformance.judging.question import Question
from conformance.reporting import jsonl as report
from gemma4_contract import Fixtures, tensors
from reference.mutants import MUTANTS
from tests.support.installed import FIXTURES
from tests.support.run_lines import run_line

MUTANT = MUTANTS["prop-rope-denominator"]
NO_CACHE = "forward/e2b-mini/uniform-l9/no-cache"
FEW = {name: MUTANTS[name] for name in ("prop-rope-denominator", "rope-full-rotation", "gelu-erf")}


def reported(directory: Path, fixtures: Fixtures, port: Any, *cases: str, impl: str = "nobody") -> str:
    """The folder of a report on these cases, written in this process."""
    run = run_line(fixtures, impl=impl)
    report.start(directory, run)
    judge = Judge(fixtures, port, "f32")
    for case in cases:
        report.append(directory, report.case_line(directory, judge.judge(case), None))
    return str(directory)


def dump(path: Path, case: str, change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> str:
    request = Question.of(FIXTURES, case).request("f32")
    tensors.write(path, change(MutantAdapter(MUTANT, "split").run(request)))
    return str(path)
