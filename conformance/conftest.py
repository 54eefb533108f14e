"""The suite's options, its report header, and the test that judges a case.

Every test module names its topic in `TOPIC`; its test runs once for each case on this topic.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from conformance.adapters.base import PORT
from conformance.adapters.registry import AdapterUnavailable, BadOption
from conformance.judging.levels import LEVELS, Tally, badge
from conformance.reporting import jsonl as report_file
from conformance.run.session import Session
from gemma4_contract import FixtureError
from gemma4_contract.models import Level

BAD_INPUT, ENVIRONMENT = 2, 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite."""
    group = parser.getgroup("conformance")
    group.addoption("--impl", default="mlx_impl", metavar="NAME", help="implementation under test (default: mlx_impl)")
    group.addoption("--port", default=None, metavar="COMMAND", help="adapter in any language, instead of --impl")
    group.addoption("--profile", default="f32", metavar="NAME", help="the arithmetic it claims")
    group.addoption(
        "--cases",
        action="append",
        metavar="GLOB",
        help="judge only the cases whose id matches; may be given several times",
    )
    group.addoption(
        "--tokens", type=int, default=None, metavar="N", help="put the first N tokens of forward cases alone"
    )
    group.addoption("--report", default=None, metavar="DIR", help="write DIR/report.jsonl and the answers that failed")
    group.addoption("--known-failures", default=None, metavar="FILE", help="strict list of explained failures")
    group.addoption("--fixtures-dir", default=None, metavar="DIR", help="fixtures folder (default: the one installed)")


def _session(config: pytest.Config) -> Session:
    """The run that the options ask for."""
    port: str | None = config.getoption("--port")
    report: str | None = config.getoption("--report")
    root = config.getoption("--fixtures-dir") or os.environ.get("GEMMA4_FIXTURES")
    known: str | None = config.getoption("--known-failures")
    return Session(
        config.getoption("--impl") if port is None else f"{PORT}{port}",
        config.getoption("--profile"),
        patterns=config.getoption("--cases") or ("*",),
        tokens=config.getoption("--tokens"),
        report=Path(report) if report else None,
        root=Path(root) if root else None,
        known=Path(known) if known else None,
    )


_RUN = pytest.StashKey[Session]()
_FIXTURE_ERROR = "fixture_error"
_CASE_LINE = "case_line"
_COUNTED = "level_and_status"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """End the run with one line and an exit code for faults of fixtures, options and environment."""
    try:
        yield
    except (FixtureError, BadOption) as error:
        pytest.exit(str(error), returncode=BAD_INPUT)
    except AdapterUnavailable as error:
        pytest.exit(str(error), returncode=ENVIRONMENT)


class _StopAtFixtureError:
    """Ends the run at the first faulty fixture, in the process that reports: with xdist, other processes judge."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _FIXTURE_ERROR:
                pytest.exit(str(value), returncode=BAD_INPUT)


class _WritesReport:
    """Adds every case to the report, in the process that reports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _CASE_LINE and report.when == "call":
                report_file.append(self.directory, report_file.CaseLine.model_validate_json(str(value)))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if terminalreporter.stats.get("failed"):
            where = shlex.quote(str(self.directory))
            terminalreporter.write_line(f"what is wrong, and where: gemma4-conformance diagnose {where}")


class _SaysWhatWasJudged:
    """Ends the run with one sentence, in the process that reports: who was judged, and which level was reached."""

    def __init__(self, run: Session) -> None:
        self.run = run
        self.tallies: dict[Level, Tally] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _COUNTED and report.when == "call":
                level, outcome = str(value).split()
                self.tallies.setdefault(cast(Level, level), Tally()).add(outcome)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        who, everything = self.run.hello, len(self.run.items)
        judged = sum(sum(tally.counts.values()) for tally in self.tallies.values())
        line = f"{who.name} {who.version} in {self.run.profile}: {judged} of {everything} questions judged; "
        terminalreporter.write_line(line + self.level(whole=judged == everything and self.run.is_whole))

    def level(self, *, whole: bool) -> str:
        """The level that was reached, and how the first that was not stands."""
        if not whole:
            return "a level is reached only by a run of all cases"
        reached = f"level reached: {badge(self.tallies) or 'none'}"
        missed = next((level for level in LEVELS if level in self.tallies and not self.tallies[level].reached), None)
        if missed is None:
            return reached
        counts = self.tallies[missed].counts
        return f"{reached}; {missed} has {', '.join(f'{counts[name]} {name}' for name in sorted(counts))}"


def _reports(config: pytest.Config) -> bool:
    """Whether this process reports to the user: xdist's workers do not."""
    return not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Open the fixtures and the implementation, and probe its arithmetic."""
    if config.option.help:
        return
    if _reports(config):
        config.pluginmanager.register(_StopAtFixtureError())
    with _one_line_errors():
        run = config.stash[_RUN] = _session(config)
        if _reports(config) and not config.option.collectonly:
            config.pluginmanager.register(_SaysWhatWasJudged(run))
        if _reports(config) and run.report is not None and not config.option.collectonly:
            run.start_report()
            config.pluginmanager.register(_WritesReport(run.report))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The implementation, the fixtures, and how exact its products are."""
    run = config.stash[_RUN]
    who = run.hello
    error = "not measured" if run.products_error is None else f"{run.products_error:.1e}"
    return [
        f"gemma 4 conformance: {who.name} {who.version} ({who.language}) on {who.device}, profile {run.profile}",
        f"fixtures: {run.fixtures.root} ({len(run.fixtures.case_ids)} cases); error of products: {error}",
        f"prompts: {len(run.fixtures.prompts.ids)}; tokenizer: "
        + str(run.tokenizer or "not fetched, ids are not compared (gemma4-conformance fetch tokenizer)"),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case on the module's `TOPIC`."""
    if "case_id" in metafunc.fixturenames:
        ids = metafunc.config.stash[_RUN].on_topic(metafunc.module.TOPIC)
        metafunc.parametrize("case_id", ids)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the modules that hold none of the chosen cases: pytest would report each as skipped."""
    items[:] = [item for item in items if not _is_empty(item)]


def _is_empty(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and not isinstance(callspec.params.get("case_id", ""), str)


@pytest.fixture
def conforms(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Judge a case or a question on prompts: pass, skip with the reason, or fail with the first divergence."""
    run = request.config.stash[_RUN]

    def judge(case_id: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # what a port warns of is no failure, whatever the project's own rule
                judged = run.judge(case_id)
        except FixtureError as error:
            request.node.user_properties.append((_FIXTURE_ERROR, str(error)))
            pytest.fail(str(error), pytrace=False)
        if judged.line is not None:
            request.node.user_properties.append((_CASE_LINE, judged.line.model_dump_json()))
        request.node.user_properties.append((_COUNTED, f"{judged.level} {judged.counts_as}"))
        if judged.counts_as == "skip":
            pytest.skip(judged.text)
        elif judged.counts_as == "known":
            pytest.xfail(judged.text)
        elif judged.counts_as == "fail":
            pytest.fail(judged.text, pytrace=False)

    return judge


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which the implementation skipped everything, or in which nothing was asked."""
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and _reports(session.config):
        sys.stderr.write("no case that --cases leaves in belongs to the test files given: nothing was asked\n")
        session.exitstatus = BAD_INPUT
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _reports(session.config) and session.exitstatus == pytest.ExitCode.OK:
        stats = reporter.stats
        if stats.get("skipped") and not stats.get("passed") and not stats.get("xfailed"):
            sys.stderr.write("every case was skipped: nothing was shown to conform\n")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
