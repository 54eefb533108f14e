"""The diagnosis of a whole report, tensors and prompts, as text."""

from __future__ import annotations

from pathlib import Path

from conformance.adapters.base import Adapter
from conformance.diagnosis import render, replay
from conformance.diagnosis.diagnose import diagnose
from gemma4_contract import Fixtures
from reference.mutants import MUTANTS


def report_as_text(fixtures: Fixtures, path: Path, port: Adapter | None) -> str:
    """The diagnosis of a report, "" if nothing failed; `port` is asked again if there is one.

    FixtureError for a broken report or other fixtures.
    """
    run, verdicts = replay.verdicts_of_report(fixtures, path)
    wrong_prompts = replay.wrong_prompts(path)
    diagnosis = diagnose(fixtures, run.profile, verdicts, MUTANTS, port)
    return render.everything_as_text(fixtures, diagnosis, wrong_prompts, run.impl, run.profile)
