"""The report of a run: `report.jsonl` has a line for the run and one for each case; failed answers lie beside it.

A line is written when its case ends, so that an interrupted run keeps its results.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from conformance.judging import prompts
from conformance.judging.compare import Status, TapVerdict
from conformance.judging.examine import CaseVerdict, Judgement, Outcome
from conformance.judging.prompts import PromptVerdict
from gemma4_contract import FixtureError, tensors
from gemma4_contract.models import Level
from gemma4_contract.profiles import ProfileId
from gemma4_contract.store import Fixtures
from gemma4_contract.tensors import DTYPES, Array

REPORT, ANSWERS = "report.jsonl", "answers"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FullSizeLine(_Line):
    """The goldens of a run at L5: those of the fixtures, or a user's own, made from a checkpoint."""

    checkpoint: str | None = None
    goldens: str | None = None


class RunLine(_Line):
    """The first line: the implementation, its arithmetic, and the digest of the fixtures."""

    format: str = "1.0"
    impl: str
    implementation: str
    version: str
    language: str
    device: str
    profile: ProfileId
    fixtures: str
    full_size: FullSizeLine | None = None
    products_error: float | None


class LocalLine(_Line):
    """The local verdict on a tap; `through` counts the taps between that the port does not offer."""

    status: Status
    ratio: float | None = None
    fault: str = ""
    through: int = 0


class TapLine(_Line):
    """A tap that was offered or failed; `ratio` is error over tolerance, null if there is none or it is infinite."""

    name: str
    status: Status
    ratio: float | None = None
    fault: str = ""
    local: LocalLine | None = None


class CaseLine(_Line):
    """The verdict on one case, or on one question on prompts.

    `answer` is the file with the answer, stored if the case failed.
    """

    case: str
    kind: str
    level: Level
    model: str | None = None
    outcome: Outcome
    judgement: Judgement = "chained"
    note: str = ""
    expected: str | None = None
    first_divergence: str | None = None
    taps: list[TapLine] = []
    answer: str | None = None

    @field_validator("note")
    @classmethod
    def _any_file_can_hold_it(cls, note: str) -> str:
        """A port's error may hold what is no text."""
        return note.encode("utf-8", "backslashreplace").decode()


def full_size_of(fixtures: Fixtures) -> FullSizeLine | None:
    """What a report needs to find the goldens of L5 again; None for the other levels."""
    weights = fixtures.weights
    if weights is None:
        return None
    if weights.is_own:
        return FullSizeLine(checkpoint=str(weights.root.resolve()), goldens=str(fixtures.root.resolve()))
    return FullSizeLine()


def start(directory: Path, run: RunLine) -> None:
    """Begin a report in `directory`, replacing an older report; FixtureError if it holds other files."""
    try:
        if directory.exists() and any(directory.iterdir()) and not (directory / REPORT).is_file():
            raise _refused(directory, "a folder that holds other things than a report")
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / ANSWERS).is_dir():
            shutil.rmtree(directory / ANSWERS)
        (directory / REPORT).write_text(run.model_dump_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise _refused(directory, error.strerror or type(error).__name__) from None


def _refused(directory: Path, got: str) -> FixtureError:
    expected = "an empty folder, a report's or a new one"
    return FixtureError(directory, got=got, expected=expected, cure="name another with --report")


def append(directory: Path, line: CaseLine) -> None:
    """Add a case to the report."""
    with (directory / REPORT).open("a", encoding="utf-8") as file:
        file.write(line.model_dump_json(exclude_defaults=True) + "\n")


def case_line(directory: Path, verdict: CaseVerdict | PromptVerdict, expected: str | None) -> CaseLine:
    """A verdict as a line; the answer of a failed case is written beside the report."""
    if isinstance(verdict, PromptVerdict):
        return CaseLine(
            case=verdict.question,
            kind=prompts.KIND,
            level=prompts.LEVEL,
            outcome=verdict.outcome,
            note=verdict.note,
            expected=expected,
        )
    case = verdict.case
    first, local = verdict.first_divergence, {tap.name: tap for tap in verdict.local}
    answer = None
    if verdict.outcome == "fail" and verdict.answer:
        answer = f"{ANSWERS}/{case.id}.safetensors"
        tensors.write(directory / answer, _writable(verdict.answer))
    return CaseLine(
        case=case.id,
        kind=case.kind,
        level=case.level,
        model=case.model,
        outcome=verdict.outcome,
        judgement=verdict.judgement,
        note=verdict.note,
        expected=expected,
        first_divergence=first.name if first else None,
        taps=[_tap_line(tap, local.get(tap.name)) for tap in verdict.taps if tap.status != "absent"],
        answer=answer,
    )


def _tap_line(tap: TapVerdict, local: TapVerdict | None) -> TapLine:
    beside = None
    if local is not None:
        beside = LocalLine(status=local.status, ratio=_finite(local.ratio), fault=local.fault, through=local.through)
    return TapLine(name=tap.name, status=tap.status, ratio=_finite(tap.ratio), fault=tap.fault, local=beside)


def _finite(ratio: float) -> float | None:
    """A ratio to four digits; None for what JSON cannot hold."""
    return float(f"{ratio:.4g}") if math.isfinite(ratio) else None


def _writable(answer: Mapping[str, Array]) -> dict[str, Array]:
    """The answer in dtypes of safetensors, as a port may use any; arrays that are not real numbers are left out."""
    return {name: _stored(x) for name, x in answer.items() if x.dtype.kind in "biufV"}  # V: those of ml_dtypes


def _stored(x: Array) -> Array:
    return x if x.dtype in DTYPES.values() else x.astype(np.int64 if x.dtype.kind in "biu" else np.float64)


def read(path: Path) -> tuple[RunLine, Mapping[str, CaseLine]]:
    """A report by its file or folder; of a case judged twice the last line counts. FixtureError if it is broken."""
    file = path / REPORT if path.is_dir() else path
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        cure = "make one with `pytest conformance/ --report DIR`"
        raise FixtureError(file, got=error.strerror or type(error).__name__, expected="a report", cure=cure) from None
    if not text:
        raise _broken(file, 1, "an empty file")
    lines = text.removesuffix("\n").split("\n")  # not splitlines: a note may hold other separators
    try:
        run = RunLine.model_validate_json(lines[0])
    except ValidationError as error:
        raise _broken(file, 1, _first(error)) from None
    cases: dict[str, CaseLine] = {}
    for number, text in enumerate(lines[1:], start=2):
        try:
            line = CaseLine.model_validate_json(text)
        except ValidationError as error:
            raise _broken(file, number, _first(error)) from None
        cases[line.case] = line
    return run, cases


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return json.dumps(f"{first['msg']} at {where or 'the line'}")


def _broken(file: Path, number: int, got: str) -> FixtureError:
    return FixtureError(f"{file}:{number}", got=got, expected="a line of a report", cure="run again with --report")
