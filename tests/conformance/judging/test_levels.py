"""Levels, and `gemma4-conformance run`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from conformance.judging.levels import LEVELS, Tally, badge, badge_text
from conformance.judging.prompts import LEVEL
from conformance.reporting import jsonl as report
from gemma4_contract import Fixtures
from gemma4_contract.full_size import at_full_size
from gemma4_contract.models import Level
from tests.support.runs import PORTS, run_command


def saboteur(how: str) -> str:
    return shlex.join([sys.executable, str(PORTS / "saboteur.py"), how])


@pytest.mark.parametrize(
    ("case_id", "level"),
    [
        ("module/linear/full-precision", "L0"),
        ("module/exp-tanh/grid", "L0"),
        ("module/long-sum/positive", "L0"),
        ("module/echo/dtypes-and-axes", "L0"),
        ("module/weights/matrix", "L0"),
        ("module/rms-norm/large", "L1"),
        ("layer/e2b-mini/full-own", "L1"),
        ("attention/e2b-mini/full-own", "L1"),
        ("forward/e2b-mini/uniform-l19/no-cache", "L2"),
        ("forward/e2b-mini/uniform-l19/chunks-5", "L3"),
    ],
)
def test_the_level_of_a_case(case_id: str, level: str) -> None:
    assert Fixtures().case(case_id).level == level


def test_every_level_has_cases() -> None:
    fixtures = Fixtures()
    full = at_full_size(fixtures, Path())
    assert LEVEL == "L4"  # of all questions on prompts
    assert {case.level for case in (*fixtures.cases(), *full.cases())} | {LEVEL} == set(LEVELS)
    assert {case.level for case in full.cases()} == {"L5"}


def tally(**counts: int) -> Tally:
    return Tally(counts={"pass": counts.get("passed", 0)} | {k: v for k, v in counts.items() if k != "passed"})


@pytest.mark.parametrize(
    ("tallies", "reached"),
    [
        ({}, None),
        ({"L0": tally(passed=1)}, "L0"),
        ({"L0": tally(passed=1), "L1": tally(passed=2, skip=1)}, "L1"),
        ({"L0": tally(passed=1, fail=1), "L1": tally(passed=2)}, None),
        ({"L1": tally(passed=2)}, None),
        ({"L0": tally(passed=1), "L1": tally(skip=3), "L2": tally(passed=1)}, "L0"),
        ({"L0": tally(passed=1), "L1": tally(passed=1, known=1)}, "L0"),
    ],
)
def test_a_level_counts_only_with_all_below_it(tallies: dict[Level, Tally], reached: str | None) -> None:
    assert badge(tallies) == reached


def test_full_size_stands_alone() -> None:
    alone = {"L5": tally(passed=1)}
    assert badge(alone, full_size=True) == "L5"
    assert badge(alone) is None
    assert badge({"L5": tally(passed=1, fail=1)}, full_size=True) is None


def test_a_tally_counts_outcomes() -> None:
    counted = Tally()
    for outcome in ("pass", "pass", "skip"):
        counted.add(outcome)
    assert (counted.count("pass"), counted.count("skip"), counted.count("fail")) == (2, 1, 0)


def test_l5_is_reached_for_the_models_that_were_asked() -> None:
    fixtures = Fixtures()
    full = at_full_size(fixtures, Path())
    asked = [
        full.case("forward/e2b-slice/text-l1/no-cache"),
        full.case("forward/e2b-full/text-l1/no-cache"),
        full.case("forward/e2b-slice/text-l24/decode"),
    ]
    assert badge_text("L5", asked) == "L5 of e2b-full, e2b-slice"
    assert badge_text(None, asked) == "none"
    assert badge_text("L3", [fixtures.case("forward/e2b-mini/uniform-l19/no-cache")]) == "L3"


def test_a_run_of_a_right_port_says_its_level() -> None:
    done = run_command("run", "--impl", "pure_python", "--profile", "f64", "--levels", "L0-L1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["levels"].keys() <= {"L0", "L1"}
    assert told["level"] in ("L0", "L1")


def test_a_run_of_some_cases_reaches_no_level_and_goes_from_the_lowest_up(tmp_path: Path) -> None:
    report_dir = tmp_path / "report"
    asked = ("--impl", "oracle", "--profile", "f64", "--cases", "module/[al]*", "--report", str(report_dir))
    done = run_command("run", *asked, "--json")
    assert (done.returncode, json.loads(done.stdout)["level"]) == (0, None)
    levels = [line.level for line in report.read(report_dir)[1].values()]
    assert levels == sorted(levels)
    assert {"L0", "L1"} <= set(levels)


def test_a_run_of_a_wrong_port_tells_what_is_wrong_and_keeps_a_report(tmp_path: Path) -> None:
    directory = tmp_path / "report"
    done = run_command("run", "--port", saboteur("zero"), "--cases", "module/rms-norm/*", "--report", str(directory))
    assert done.returncode == 1
    assert "first divergence: y" in done.stdout
    assert f"reproduce: pytest conformance/ --port {shlex.quote(saboteur('zero'))} --profile f32" in done.stdout
    assert f"\nlevel: asked with all cases only\nreport: {directory}/report.html\n" in done.stdout
    assert f"what is wrong, and where: gemma4-conformance diagnose {directory}" in done.stderr
    run, lines = report.read(directory)
    assert (run.implementation, "fail" in {line.outcome for line in lines.values()}) == ("saboteur", True)


@pytest.mark.parametrize("how", ["zero", pytest.param("crash", marks=pytest.mark.slow)])
def test_failures_are_written_as_a_list_that_the_next_run_keeps_to(how: str, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    asked = ("run", "--port", saboteur(how), "--cases", "module/rms-norm/*")
    first = run_command(*asked, "--write-known-failures", str(known))
    assert first.returncode == 1
    assert f" failures written to {known}: say of each why it is\n" in first.stderr
    lines = known.read_text(encoding="utf-8").splitlines()
    assert lines
    assert all(line.startswith("f32 module/rms-norm/") and "  # explain: " in line for line in lines)
    assert all((" stops " in line) == (how == "crash") for line in lines)
    again = run_command(*asked, "--known-failures", str(known), "--json")
    counts = json.loads(again.stdout)["levels"]["L1"]
    assert counts["known"] == len(lines)
    assert "fail" not in counts
    other = run_command("run", "--port", saboteur("honest"), *asked[3:], "--known-failures", str(known))
    assert other.returncode == 1
    assert "passes, but known.txt lists it: delete the line" in other.stdout


def test_a_listed_case_that_fails_in_another_way_is_told_everywhere(tmp_path: Path) -> None:
    known, directory = tmp_path / "known.txt", tmp_path / "report"
    known.write_text("f32 module/rms-norm/large  # answers wrongly\n", encoding="utf-8")
    options = ("--cases", "module/rms-norm/large", "--known-failures", str(known), "--report", str(directory))
    done = run_command("run", "--port", saboteur("crash"), *options, "--json")
    assert (done.returncode, json.loads(done.stdout)["levels"]) == (1, {"L1": {"fail": 1}})
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert "<summary>module/rms-norm/large</summary>" in page
    told = run_command("diagnose", str(directory))
    assert (told.returncode, "module/rms-norm/large" in told.stdout) == (1, True)


@pytest.mark.parametrize("how", ["skips", "crash", "hang"])
def test_no_saboteur_is_green(how: str) -> None:
    done = run_command("run", "--port", saboteur(how), "--cases", "module/rms-norm/large", "--timeout", "1")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--levels", "L9"), 2, "--levels: got 'L9', expected some of L0, L1, L2, L3, L4"),
        (("--levels", "L4", "--cases", "module/*"), 2, "--levels: got L4, expected levels of which --cases leaves"),
        (("--port", "/no/such/port"), 3, "--port: the port cannot be started: /no/such/port: No such file"),
        (("--known-failures", "/no/list"), 2, "/no/list: got no file, expected a list of known failures"),
        (("--profile", "f64"), 2, "--profile: got f64, expected one that mlx_impl offers: f32, bf16, f16"),
    ],
)
def test_bad_options_are_one_line(options: tuple[str, ...], code: int, said: str) -> None:
    done = run_command("run", *options)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(said)
