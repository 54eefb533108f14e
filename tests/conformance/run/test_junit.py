"""The run as JUnit XML, read back by a parser of other people's."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from conformance.known_failures import Counted
from conformance.run.junit import write_junit
from conformance.run.session import Judged
from tests.support.runs import PORTS, run_command

LARGE = "module/rms-norm/large"


def run_to(path: Path, how: str, *options: str) -> tuple[TestSuite, dict[str, dict[str, int]]]:
    """The only suite of a run's file, and the counts by level that it prints."""
    port = shlex.join([sys.executable, str(PORTS / "saboteur.py"), how])
    done = run_command("run", "--port", port, "--junit", str(path), "--json", *options)
    (suite,) = JUnitXml.fromfile(str(path))
    return suite, json.loads(done.stdout)["levels"]


def counted(suite: TestSuite, level: str) -> dict[str, int]:
    """How the cases of a level ended, failures and errors as one."""
    counts = {"fail": 0, "skip": 0, "pass": 0}
    for case in (case for case in suite if case.classname == level):
        kind = type(case.result[0]) if case.result else None
        counts["pass" if kind is None else "skip" if kind is Skipped else "fail"] += 1
    return counts


def only_result(suite: TestSuite, case_id: str) -> Failure | Error | Skipped:
    (case,) = (case for case in suite if case.name == case_id)
    (result,) = case.result
    return result


@pytest.mark.parametrize("how", ["zero", "crash at large", "honest"])
def test_the_counts_are_those_of_the_run(how: str, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text("f32 module/rms-norm/weighted  # yet to be mended\n", encoding="utf-8")
    suite, levels = run_to(tmp_path / "junit.xml", how, "--cases", "module/*", "--known-failures", str(known))
    assert levels.keys() == {case.classname for case in suite} == {"L0", "L1"}
    for level, counts in levels.items():
        skipped = counts.get("skip", 0) + counts.get("known", 0)
        told = {"fail": counts.get("fail", 0), "skip": skipped, "pass": counts.get("pass", 0)}
        assert counted(suite, level) == told
    total = sum(sum(counts.values()) for counts in levels.values())
    failed = sum(counts.get("fail", 0) for counts in levels.values())
    assert (suite.tests, suite.failures + suite.errors) == (total, failed)
    assert suite.errors == (how == "crash at large")
    assert suite.skipped == total - failed - sum(counts.get("pass", 0) for counts in levels.values())
    assert suite.name == "saboteur 1, profile f32"


def test_a_failure_is_told_as_the_run_tells_it(tmp_path: Path) -> None:
    suite, _ = run_to(tmp_path / "new folder" / "junit.xml", "zero", "--cases", "module/[rs]*")
    wrong = only_result(suite, LARGE)
    assert isinstance(wrong, Failure)
    assert wrong.message == f"{LARGE}: Inputs of RMS 1,000, whose squares overflow float16."
    assert wrong.text.startswith(f"{wrong.message}\nfirst divergence: y\n  got 0, expected ")
    assert "\nreproduce: pytest conformance/ --port " in wrong.text
    skipped = only_result(suite, "module/softcap/cap-30")
    assert isinstance(skipped, Skipped)
    assert skipped.message == "no kind softcap"


def test_a_crash_is_an_error_and_a_known_failure_is_skipped_with_its_reason(tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(f"f32 {LARGE} stops  # out of luck\n", encoding="utf-8")
    options = ("--cases", "module/rms-norm/*", "--known-failures", str(known))
    suite, _ = run_to(tmp_path / "junit.xml", "crash", *options)
    assert isinstance(only_result(suite, "module/rms-norm/weighted"), Error)
    listed = only_result(suite, LARGE)
    assert (type(listed), listed.message) == (Skipped, "out of luck")


def test_what_a_port_says_breaks_no_file(tmp_path: Path) -> None:
    suite, _ = run_to(tmp_path / "junit.xml", "unprintable", "--cases", LARGE)
    said = only_result(suite, LARGE)
    assert "the port answered with an error: \\x1b[31m\\x00 \\ufffe ]]> <&" in said.text


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\x00\x08\x0b\x1f", "\\x00\\x08\\x0b\\x1f"),
        ("\ud800 \udfff", "\\ud800 \\udfff"),
        ("\ufffe\uffff", "\\ufffe\\uffff"),
        ("é 漢 🎉 \U0010ffff \ue000", "é 漢 🎉 \U0010ffff \ue000"),
        ('<a b="c">&amp;]]>', '<a b="c">&amp;]]>'),
        ("\t one\n two", "\t one\n two"),
    ],
)
def test_any_text_can_be_read_back(text: str, read: str, tmp_path: Path) -> None:
    one = Judged(case=LARGE, level="L1", outcome="fail", counts_as="fail", text=f"it: {text}", seen="", line=None)
    write_junit(tmp_path / "junit.xml", f"port {text}", [one])
    (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    result = only_result(suite, LARGE)
    assert result.text == f"it: {read}"
    assert result.message == f"it: {read}".partition("\n")[0]
    assert suite.name == f"port {read}"


@pytest.mark.parametrize(
    ("outcome", "as_what", "kind"),
    [
        ("pass", "pass", None),
        ("pass", "fail", Failure),
        ("error", "known", Skipped),
        ("undecidable", "skip", Skipped),
        ("advice", "skip", Skipped),
    ],
)
def test_what_an_outcome_becomes(outcome: str, as_what: Counted, kind: type | None, tmp_path: Path) -> None:
    one = Judged(
        case=LARGE,
        level="L1",
        outcome=outcome,  # type: ignore[arg-type]
        counts_as=as_what,  # type: ignore[arg-type]
        text="why",
        seen="",
        line=None,
    )
    write_junit(tmp_path / "junit.xml", "x", [one])
    (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    case: TestCase
    (case,) = suite
    assert [type(result) for result in case.result] == ([] if kind is None else [kind])
    assert [result.message for result in case.result] == [] if kind is None else ["why"]
