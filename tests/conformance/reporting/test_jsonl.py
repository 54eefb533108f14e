"""The report of a run: what is written as the run goes, what is kept of the answers, and what is said of a bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conformance.judging.examine import CaseVerdict
from conformance.judging.judge import Judge
from conformance.reporting import jsonl as report
from conformance.reporting.jsonl import CaseLine
from gemma4_contract import FixtureError, tensors
from tests.support.fakes import Change, Port, parrot, raiser, skipper
from tests.support.installed import FIXTURES
from tests.support.run_lines import run_line
from tests.support.runs import ALONE_OR_SHARED, Done, one_line, run_suite
from tests.support.trees import LAYER, ROPE

ROPES = "module/rope/default-at-*"
RIGHT = "module/rope/default-at-1"
FIRST_LINE = run_line()


def judged(case: str, port: Port, profile: str = "f32") -> CaseVerdict:
    return Judge(FIXTURES, port, profile).judge(case)


def line_of(tmp_path: Path, case: str, change: Change, profile: str = "f32") -> CaseLine:
    return report.case_line(tmp_path, judged(case, parrot(FIXTURES, change), profile), None)


def lines(directory: Path) -> list[dict[str, Any]]:
    """The lines of a report as any JSON reader sees them."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    texts = (directory / "report.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(text, parse_constant=refuse) for text in texts]


def answers(directory: Path) -> set[str]:
    folder = directory / "answers"
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.safetensors")}


def reported(directory: Path, impl: str, cases: str, *options: str) -> Done:
    done = run_suite("--impl", impl, "--cases", cases, "--report", str(directory), *options)
    assert "Traceback" not in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr
    return done


# A run


@pytest.mark.parametrize("extra", ALONE_OR_SHARED)
def test_a_run_is_reported(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """Under xdist the workers judge and one process writes."""
    done = reported(tmp_path / "new" / "report", "wrong", ROPES, *extra)
    assert done.returncode == 1
    hint = f"what is wrong, and where: gemma4-conformance diagnose {tmp_path}/new/report\n"
    assert done.stdout.count(hint) == 1

    first, *cases = lines(tmp_path / "new" / "report")
    error = first.pop("products_error")
    assert 0 <= error < 1e-6
    assert first == FIRST_LINE.model_dump(exclude={"products_error"}) | {"impl": "wrong"}
    asked = {case for case in FIXTURES.case_ids if case.startswith("module/rope/default-at-")}
    assert len(asked) == len(cases) == 5
    outcomes = {line["case"]: line["outcome"] for line in cases}
    assert outcomes == dict.fromkeys(asked, "pass") | {ROPE: "fail"}
    assert answers(tmp_path / "new" / "report") == {ROPE}


def test_the_next_run_replaces_the_report(tmp_path: Path) -> None:
    reported(tmp_path, "wrong", ROPE)
    assert answers(tmp_path) == {ROPE}
    done = reported(tmp_path, "wrong", RIGHT)
    assert done.returncode == 0
    assert "diagnose" not in done.stdout
    assert [line.get("case") for line in lines(tmp_path)] == [None, RIGHT]
    assert answers(tmp_path) == set()


def test_bad_usage_leaves_the_last_report_as_it_was(tmp_path: Path) -> None:
    report.start(tmp_path, FIRST_LINE)
    before = (tmp_path / "report.jsonl").read_bytes()
    assert reported(tmp_path, "wrong", "nothing/*").returncode == 2
    assert (tmp_path / "report.jsonl").read_bytes() == before


def test_a_look_at_the_cases_leaves_the_last_report_as_it_was(tmp_path: Path) -> None:
    reported(tmp_path, "wrong", ROPE)
    before = lines(tmp_path)
    assert reported(tmp_path, "wrong", ROPE, "--collect-only").returncode == 0
    assert lines(tmp_path) == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = reported(tmp_path, "parrot", ROPE)
    assert done.returncode == 2
    assert one_line(done.stderr) == (
        f"Exit: {tmp_path}: got a folder that holds other things than a report, expected an empty folder, a report's"
        " or a new one; name another with --report"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("?")
    done = reported(tmp_path / "report", "parrot", ROPE)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith(f"Exit: {tmp_path}/report: got Not a directory, expected an empty ")
    assert (tmp_path / "report").read_text() == "?"


def test_fixtures_without_sums_cannot_be_named_in_a_report(tmp_path: Path) -> None:
    root = tmp_path / "fixtures"
    root.mkdir()
    for part in ("cases", "floors", "models", "profiles"):
        (root / part).symlink_to(FIXTURES.root / part)
    done = reported(tmp_path / "report", "parrot", ROPE, "--fixtures-dir", str(root))
    assert done.returncode == 2
    assert one_line(done.stderr).startswith(f"Exit: {root}/SHA256SUMS: got No such file or directory, ")


# --tokens


def test_a_case_is_cut_to_tokens_and_the_command_that_reproduces_says_so() -> None:
    done = run_suite("--impl", "oracle", "--cases", "forward/e2b-mini/uniform-l9/chunks-5", "--tokens", "6")
    assert done.returncode == 0, done.stdout
    # A parrot repeats the whole golden, whatever it is asked.
    done = run_suite("--impl", "parrot", "--cases", "forward/e2b-mini/uniform-l9/chunks-5", "--tokens", "6")
    assert done.returncode == 1
    assert "  shape [1, 9, 48], expected [1, 6, 48] (B L D)\n" in done.stdout
    (command,) = (line for line in done.stdout.splitlines() if line.startswith("reproduce: "))
    assert command.endswith(" --cases 'forward/e2b-mini/uniform-l9/chunks-5' --tokens 6")


def test_no_tokens_are_no_question() -> None:
    done = run_suite("--impl", "parrot", "--cases", ROPE, "--tokens", "0")
    assert done.returncode == 2
    assert one_line(done.stderr) == "Exit: --tokens: got 0, expected at least 1"


def test_a_report_is_on_whole_cases(tmp_path: Path) -> None:
    done = reported(tmp_path / "report", "parrot", ROPE, "--tokens", "6")
    assert done.returncode == 2
    told = "Exit: --report: got --tokens with it, expected one of them: a report is on whole cases"
    assert one_line(done.stderr) == told
    assert not (tmp_path / "report").exists()


# A case as a line


def test_a_failure_is_told_with_every_tap_that_was_offered(tmp_path: Path) -> None:
    names = [tap.name for tap in FIXTURES.taps(FIXTURES.case(LAYER))]
    line = line_of(tmp_path, LAYER, lambda taps: {name: taps[name] * (1 + (name == names[3])) for name in names[2:]})
    assert (line.case, line.outcome, line.first_divergence) == (LAYER, "fail", names[3])
    assert [tap.name for tap in line.taps] == names[2:]
    assert [tap.status for tap in line.taps] == ["pass", "fail"] + ["pass"] * (len(names) - 4)
    assert line.taps[0].ratio == 0
    assert line.taps[1].ratio is not None
    assert line.taps[1].ratio > 1000
    assert line.taps[1].fault.startswith("got ")
    kept = tensors.read(tmp_path / f"answers/{LAYER}.safetensors")
    assert line.answer == f"answers/{LAYER}.safetensors"
    assert kept.keys() == set(names[2:])
    assert np.array_equal(kept[names[3]], 2 * FIXTURES.golden(FIXTURES.case(LAYER))[names[3]])


@pytest.mark.parametrize(
    ("port", "outcome", "note"),
    [
        (skipper(), "skip", "no rope here"),
        (raiser(ValueError("bad\nluck")), "error", "the implementation raised ValueError: bad luck (fakes.py:"),
        (parrot(FIXTURES), "pass", ""),
    ],
)
def test_an_answer_is_kept_only_where_there_is_one_that_failed(
    tmp_path: Path, port: Port, outcome: str, note: str
) -> None:
    line = report.case_line(tmp_path, judged(ROPE, port), None)
    assert line.outcome == outcome
    assert line.note.startswith(note)
    assert line.answer is None
    assert answers(tmp_path) == set()


def test_a_known_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    line = report.case_line(tmp_path, judged(ROPE, parrot(FIXTURES, lambda taps: {"y": -taps["y"]})), "turns twice")
    assert (line.outcome, line.expected) == ("fail", "turns twice")


def all_of(value: float) -> Change:
    return lambda taps: {name: np.full(x.shape, value) for name, x in taps.items()}


@pytest.mark.parametrize(
    ("case", "change"),
    [
        (ROPE, all_of(np.nan)),
        (ROPE, all_of(-np.inf)),
        (ROPE, lambda taps: {"y": taps["y"][:, :1]}),
        ("module/rms-norm/zeros", all_of(1e-30)),  # any error is infinite where the golden is zero
    ],
)
def test_a_ratio_that_is_no_number_is_null(tmp_path: Path, case: str, change: Change) -> None:
    report.start(tmp_path, FIRST_LINE)
    line = line_of(tmp_path, case, change)
    report.append(tmp_path, line)
    (told,) = lines(tmp_path)[1:]
    assert told["outcome"] == "fail"
    assert [tap.get("ratio") for tap in told["taps"]] == [None]
    _, cases = report.read(tmp_path)
    assert cases == {case: line}


BF16 = np.dtype(ml_dtypes.bfloat16)
E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("float16", "float16"),
        (BF16, "bfloat16"),
        ("float64", "float64"),
        ("int64", "int64"),
        ("bool", "int64"),
        ("int16", "int64"),
        (">f4", "float64"),
        ("longdouble", "float64"),
        (E4M3, "float64"),
    ],
)
def test_numbers_of_any_dtype_are_kept(tmp_path: Path, dtype: Any, stored: str) -> None:
    def change(taps: dict[str, Any]) -> dict[str, Any]:
        return {"y": np.rint(taps["y"]).clip(0, 1).astype(dtype)}

    line = line_of(tmp_path, ROPE, change)
    assert line.answer is not None
    kept = tensors.read(tmp_path / line.answer)["y"]
    assert kept.dtype.name == stored
    wanted = FIXTURES.golden(FIXTURES.case(ROPE))["y"]
    assert np.array_equal(kept.astype(np.float64), np.rint(wanted).clip(0, 1))


@pytest.mark.parametrize("dtype", ["complex64", "object", "U5"])
def test_what_is_no_number_is_told_and_not_kept(tmp_path: Path, dtype: str) -> None:
    line = line_of(tmp_path, ROPE, lambda taps: {"y": np.full(taps["y"].shape, "no" if dtype == "U5" else 1j, dtype)})
    assert line.outcome == "fail"
    assert line.taps[0].fault.startswith(f"dtype {'<U5' if dtype == 'U5' else dtype}, expected ")
    assert line.answer is not None
    assert tensors.read(tmp_path / line.answer) == {}


# Reading


def line(case: str, **facts: Any) -> CaseLine:
    return CaseLine(case=case, kind="rope", level="L1", **facts)


def written(tmp_path: Path) -> Path:
    """A good report of three lines."""
    report.start(tmp_path, FIRST_LINE)
    report.append(tmp_path, line(ROPE, outcome="skip", note="not yet"))
    report.append(tmp_path, line(RIGHT, outcome="pass"))
    return tmp_path / "report.jsonl"


def test_a_report_is_read_by_its_folder_and_by_its_file(tmp_path: Path) -> None:
    file = written(tmp_path)
    run_line, cases = report.read(tmp_path)
    assert run_line == FIRST_LINE
    assert list(cases) == [ROPE, RIGHT]
    assert cases[ROPE].note == "not yet"
    assert report.read(file) == (run_line, cases)


def test_a_case_that_was_judged_twice_counts_as_the_last_time(tmp_path: Path) -> None:
    written(tmp_path)
    report.append(tmp_path, line(ROPE, outcome="pass"))
    _, cases = report.read(tmp_path)
    assert {case: line.outcome for case, line in cases.items()} == {ROPE: "pass", RIGHT: "pass"}


@pytest.mark.parametrize("separator", ["\n", "\u2028", "\x85", "\x0c"])
def test_whatever_a_note_holds_it_stays_on_its_line(tmp_path: Path, separator: str) -> None:
    written(tmp_path)
    report.append(tmp_path, line(LAYER, outcome="skip", note=f"not{separator}yet"))
    _, cases = report.read(tmp_path)
    assert cases[LAYER].note == f"not{separator}yet"


@pytest.mark.parametrize(
    ("change", "number", "got"),
    [
        (lambda _: "", 1, "an empty file"),
        (lambda _: "\n", 1, "Invalid JSON"),
        (lambda text: "garbage\n" + text, 1, "Invalid JSON"),
        (lambda text: text.replace('"impl"', '"port"'), 1, "Field required at impl"),
        (lambda text: text.replace('"f32"', '"F 32"'), 1, "String should match pattern '^[a-z0-9][a-z0-9-]*$' at prof"),
        (lambda text: text.replace('"skip"', '"maybe"'), 2, "Input should be 'pass', 'fail', "),
        (lambda text: text.replace('"note"', '"notes"'), 2, "Extra inputs are not permitted at notes"),
        (lambda text: text[:-9], 3, "Invalid JSON"),
        (lambda text: text + "7\n", 4, "Input should be an object at the line"),
        (lambda text: "\udcff" + text, 1, "Invalid JSON"),
    ],
)
def test_a_broken_report_is_one_line_that_names_file_and_line(
    tmp_path: Path, change: Callable[[str], str], number: int, got: str
) -> None:
    file = written(tmp_path)
    text = change(file.read_text(encoding="utf-8"))
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(FixtureError) as raised:
        report.read(tmp_path)
    told = one_line(str(raised.value))
    assert told.startswith(f"{file}:{number}: got ")
    assert got in told
    assert told.endswith(", expected a line of a report; run again with --report")


def test_no_report_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "report.jsonl"):
        with pytest.raises(FixtureError, match=r"report\.jsonl: got No such file or directory, expected a report"):
            report.read(path)


# The report itself


def test_start_takes_an_empty_folder_a_new_one_and_a_report_s(tmp_path: Path) -> None:
    report.start(tmp_path / "a" / "b", FIRST_LINE)
    (tmp_path / "empty").mkdir()
    report.start(tmp_path / "empty", FIRST_LINE)
    written(tmp_path / "a" / "b")
    report.start(tmp_path / "a" / "b", FIRST_LINE)
    assert len(lines(tmp_path / "a" / "b")) == 1


def test_a_note_that_is_no_text_is_held_all_the_same(tmp_path: Path) -> None:
    report.start(tmp_path, FIRST_LINE)
    report.append(tmp_path, line("prompt/chat/x", outcome="error", note="bad \ud800"))
    _, lines = report.read(tmp_path)
    assert lines["prompt/chat/x"].note == r"bad \ud800"
