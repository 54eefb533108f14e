"""Verdicts again from a report or a dump: as they were made, with nothing but files at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conformance.diagnosis import replay
from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from conformance.reporting import jsonl as report
from gemma4_contract import FixtureError, Fixtures, tensors
from tests.support.fakes import Change, Port, Taps, parrot, raiser, skipper
from tests.support.installed import FIXTURES
from tests.support.run_lines import run_line
from tests.support.trees import LAYER, POINTER, ROPE, small_tree

NAMES = [tap.name for tap in FIXTURES.taps(FIXTURES.case(LAYER))]


def reported(directory: Path, *verdicts: CaseVerdict, profile: str = "f32") -> list[CaseVerdict]:
    """The verdicts, written and read again."""
    report.start(directory, run_line(profile=profile))
    for verdict in verdicts:
        report.append(directory, report.case_line(directory, verdict, None))
    run, again = replay.verdicts_of_report(FIXTURES, directory)
    assert run == run_line(profile=profile)
    return again


def judged(port: Port, case: str = LAYER, profile: str = "f32") -> CaseVerdict:
    return Judge(FIXTURES, port, profile).judge(case)


def of(dtype: str) -> Change:
    return lambda taps: {name: x.astype(dtype) for name, x in taps.items()}


def negated_offering(*names: str) -> Change:
    return lambda taps: {name: -taps[name] for name in names}


CHANGES: dict[str, Change] = {
    "wrong values": lambda taps: {**taps, NAMES[4]: 2 * taps[NAMES[4]]},
    "NaN": lambda taps: {**taps, NAMES[4]: np.where(taps[NAMES[4]] > 0, np.nan, taps[NAMES[4]])},
    "wrong shape": lambda taps: {**taps, NAMES[4]: taps[NAMES[4]][:, 1:]},
    "few taps": negated_offering(NAMES[2], NAMES[-1]),
    "no last tap": lambda taps: {name: taps[name] for name in NAMES[:-1]},
    "integers": of("int64"),
    "halves": of("float16"),
    "booleans": of("bool"),
    "a dtype that no file holds, values right": of("longdouble"),
    "complex numbers": of("complex64"),
    "text": of("U8"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_failure_is_read_as_it_was_judged(tmp_path: Path, change: Change) -> None:
    verdict = judged(parrot(FIXTURES, change))
    assert verdict.outcome == "fail"
    (again,) = reported(tmp_path, verdict)
    assert (again.case, again.outcome, again.note) == (verdict.case, "fail", verdict.note)
    assert [tap.name for tap in again.taps] == [tap.name for tap in verdict.taps]
    assert [tap.status == "fail" for tap in again.taps] == [tap.status == "fail" for tap in verdict.taps]
    first, first_again = verdict.first_divergence, again.first_divergence
    assert (first is None) == (first_again is None)
    if first is not None and first_again is not None:
        assert (first_again.name, first_again.error) == (first.name, first.error)


def test_a_failure_is_judged_in_the_arithmetic_of_its_run(tmp_path: Path) -> None:
    """Sixteen bits are enough where that is what was claimed."""
    rounded = of("float16")
    verdict = judged(parrot(FIXTURES, lambda taps: {**rounded(taps), NAMES[4]: taps[NAMES[4]] * 2}), profile="f16")
    (again,) = reported(tmp_path, verdict, profile="f16")
    assert [tap.name for tap in again.taps if tap.status == "fail"] == [NAMES[4]]


def test_a_report_is_read_by_the_name_of_its_file_too(tmp_path: Path) -> None:
    (again,) = reported(tmp_path, judged(parrot(FIXTURES, of("float16"))))
    _, (by_file,) = replay.verdicts_of_report(FIXTURES, tmp_path / "report.jsonl")
    assert by_file.answer is not None
    assert again.answer is not None
    assert by_file.answer.keys() == again.answer.keys()


def test_an_empty_answer_has_no_file_and_fails_still(tmp_path: Path) -> None:
    (again,) = reported(tmp_path, judged(parrot(FIXTURES, lambda _: {})))
    assert (again.outcome, again.note) == ("fail", f"{NAMES[-1]} is required and absent")
    assert again.first_divergence is None


def test_a_case_that_passed_speaks_as_its_golden_does_at_the_taps_that_were_offered(tmp_path: Path) -> None:
    """Its answer was not kept, and it was as good as the golden."""
    rough: Change = lambda taps: {name: taps[name] * (1 + 1e-8) for name in NAMES[5:]}  # noqa: E731
    other = next(case_id for case_id in FIXTURES.case_ids if case_id.startswith("layer/") and case_id != LAYER)
    again, _ = reported(tmp_path, judged(parrot(FIXTURES, rough)), judged(raiser(ValueError("bad luck")), other))
    assert again.outcome == "pass"
    assert again.answer is not None
    golden = FIXTURES.golden(FIXTURES.case(LAYER))
    assert list(again.answer) == NAMES[5:]
    assert all(x is golden[name] or np.array_equal(x, golden[name]) for name, x in again.answer.items())
    assert [tap.status for tap in again.taps] == ["absent"] * 5 + ["pass"] * len(NAMES[5:])


def test_where_nothing_failed_nothing_is_examined(tmp_path: Path) -> None:
    """Thousands of taps would be held for a diagnosis that nobody needs."""
    (again,) = reported(tmp_path, judged(parrot(FIXTURES, dict)))
    assert (again.outcome, again.answer, again.taps) == ("pass", None, ())


@pytest.mark.parametrize("port", [skipper(), raiser(ValueError("bad luck"))])
def test_a_case_without_an_answer_has_its_note(tmp_path: Path, port: Port) -> None:
    verdict = judged(port)
    assert verdict.outcome in ("skip", "error")
    (again,) = reported(tmp_path, verdict)
    assert again == verdict


def test_cases_are_read_in_the_order_in_which_they_were_judged(tmp_path: Path) -> None:
    verdicts = [judged(parrot(FIXTURES), case) for case in (ROPE, POINTER, LAYER)]
    assert [verdict.case.id for verdict in reported(tmp_path, *verdicts)] == [ROPE, POINTER, LAYER]


def test_a_report_on_other_fixtures_is_refused(tmp_path: Path) -> None:
    other = Fixtures(small_tree(tmp_path / "fixtures"))
    report.start(tmp_path / "report", run_line(other))
    with pytest.raises(FixtureError, match=r"report: got a report on other fixtures \(\w{12}\.\.\.\), expected these"):
        replay.verdicts_of_report(FIXTURES, tmp_path / "report")
    run, verdicts = replay.verdicts_of_report(other, tmp_path / "report")
    assert (run, verdicts) == (run_line(other), [])


def test_a_missing_answer_is_named(tmp_path: Path) -> None:
    reported(tmp_path, judged(parrot(FIXTURES, of("int64"))))
    (tmp_path / "answers" / f"{LAYER}.safetensors").unlink()
    with pytest.raises(FixtureError, match=rf"answers/{LAYER}\.safetensors: got No such file or directory"):
        replay.verdicts_of_report(FIXTURES, tmp_path)


# Dumps


def dumped(path: Path, answer: Taps, profile: str = "f32") -> CaseVerdict:
    tensors.write(path, answer)
    return replay.verdict_of_dump(FIXTURES, profile, LAYER, path)


def test_a_dump_is_judged_like_an_answer(tmp_path: Path) -> None:
    golden = {name: x.astype(np.float32) for name, x in FIXTURES.golden(FIXTURES.case(LAYER)).items()}
    assert dumped(tmp_path / "right.safetensors", golden).outcome == "pass"
    golden[NAMES[4]] = golden[NAMES[4]] + 1
    verdict = dumped(tmp_path / "wrong.safetensors", golden)
    assert verdict.outcome == "fail"
    assert verdict.first_divergence is not None
    assert verdict.first_divergence.name == NAMES[4]


def test_a_dump_may_claim_16_bits(tmp_path: Path) -> None:
    golden = {name: x.astype(np.float16) for name, x in FIXTURES.golden(FIXTURES.case(LAYER)).items()}
    assert dumped(tmp_path / "right.safetensors", golden, "f16").outcome == "pass"
    assert dumped(tmp_path / "right.safetensors", golden, "f32").outcome == "fail"


def test_a_known_failure_is_no_riddle(tmp_path: Path) -> None:
    report.start(tmp_path, run_line())
    wrong = judged(parrot(FIXTURES, CHANGES["wrong values"]))
    assert wrong.outcome == "fail"
    report.append(tmp_path, report.case_line(tmp_path, wrong, "a bug of theirs"))
    report.append(tmp_path, report.case_line(tmp_path, judged(parrot(FIXTURES), ROPE), None))
    _, again = replay.verdicts_of_report(FIXTURES, tmp_path)
    assert [verdict.case.id for verdict in again] == [ROPE]


def test_an_answer_outside_the_report_is_not_read(tmp_path: Path) -> None:
    report.start(tmp_path / "report", run_line())
    tensors.write(tmp_path / "elsewhere.safetensors", FIXTURES.golden(FIXTURES.case(LAYER)))
    line = report.CaseLine(case=LAYER, kind="layer", level="L1", outcome="fail", answer="../elsewhere.safetensors")
    report.append(tmp_path / "report", line)
    with pytest.raises(FixtureError, match="a file outside the report"):
        replay.verdicts_of_report(FIXTURES, tmp_path / "report")
