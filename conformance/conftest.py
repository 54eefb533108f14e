"""The suite's options, its report header, and the test that judges a case.

Every test module names the cases it puts as globs in a module-level `CASES`; its test runs once for each.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from pydantic import ValidationError

from conformance import report as report_file
from conformance.adapters.registry import PORT, AdapterUnavailable, BadOption, create, hello_of
from conformance.examine import CaseVerdict
from conformance.failure import describe
from conformance.fetch.cache import tokenizer_path
from conformance.judge import Judge
from conformance.known_failures import KnownFailures
from conformance.probe import require_exact_products
from conformance.prompts.judge import PromptJudge, PromptVerdict
from conformance.question import again
from reference.format import FixtureError, Fixtures, default_root
from reference.format.prompts import is_on_prompts

BAD_INPUT, ENVIRONMENT = 2, 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite."""
    group = parser.getgroup("conformance")
    group.addoption("--impl", default="mlx_impl", metavar="NAME", help="implementation under test (default: mlx_impl)")
    group.addoption("--port", default=None, metavar="COMMAND", help="adapter in any language, instead of --impl")
    group.addoption("--profile", default="f32", metavar="NAME", help="the arithmetic it claims")
    group.addoption("--cases", default="*", metavar="GLOB", help="judge only the cases whose id matches")
    group.addoption(
        "--tokens", type=int, default=None, metavar="N", help="put the first N tokens of forward cases alone"
    )
    group.addoption("--report", default=None, metavar="DIR", help="write DIR/report.jsonl and the answers that failed")
    group.addoption("--fixtures-dir", default=None, metavar="DIR", help="fixtures folder (default: the one installed)")


class Run:
    """What one run judges."""

    def __init__(self, config: pytest.Config) -> None:
        port: str | None = config.getoption("--port")
        self.impl: str = config.getoption("--impl") if port is None else f"{PORT}{port}"
        self.profile: str = config.getoption("--profile")
        self.pattern: str = config.getoption("--cases")
        self.tokens: int | None = config.getoption("--tokens")
        if self.tokens is not None and self.tokens < 1:
            raise BadOption(f"--tokens: got {self.tokens}, expected at least 1")
        report_dir: str | None = config.getoption("--report")
        if self.tokens is not None and report_dir:
            raise BadOption("--report: got --tokens with it, expected one of them: a report is on whole cases")
        self.report = Path(report_dir) if report_dir else None
        root = config.getoption("--fixtures-dir") or os.environ.get("GEMMA4_FIXTURES")
        self.fixtures = Fixtures(Path(root) if root else None)
        self.known = KnownFailures.of(self.impl)
        adapter = create(self.impl)
        self.tokenizer = tokenizer_path() if tokenizer_path().is_file() else None
        self.prompt_judge = PromptJudge(self.fixtures.prompts, adapter, self.tokenizer)
        questions = list(self.prompt_judge.questions())
        if root is None:  # a part of the fixtures may lack what a line is about
            self.known.check_used([*self.fixtures.case_ids, *questions])
        self.hello = hello_of(adapter, self.impl)
        if self.profile not in self.hello.profiles:
            offered = ", ".join(self.hello.profiles)
            raise BadOption(f"--profile: got {self.profile}, expected one that {self.impl} offers: {offered}")
        self.products_error = require_exact_products(self.fixtures, adapter, self.impl, self.profile)
        self.judge = Judge(self.fixtures, adapter, self.profile)
        matching = (case_id for case_id in self.fixtures.case_ids if fnmatchcase(case_id, self.pattern))
        self.asked = [case_id for case_id in matching if self.judge.asks(case_id)]
        self.asked += [question for question in questions if _matches(question, self.pattern)]
        if not self.asked:
            raise FixtureError(
                "--cases",
                got=f"{self.pattern!r}, which matches no case that is asked in profile {self.profile}",
                expected="a glob over case ids",
                cure="try '*rope*', or see `gemma4-conformance list`",
            )

    def judged(self, case_id: str) -> CaseVerdict | PromptVerdict:
        """The verdict on one case, or on one question on prompts."""
        if is_on_prompts(case_id):
            return self.prompt_judge.judge(case_id)
        return self.judge.judge(case_id, self.tokens)

    def start_report(self) -> None:
        """Begin the report, if one is wanted."""
        if self.report is None:
            return
        try:
            line = report_file.RunLine(
                impl=self.impl,
                implementation=self.hello.name,
                version=self.hello.version,
                language=self.hello.language,
                device=self.hello.device,
                profile=self.profile,
                fixtures=report_file.digest(self.fixtures),
                products_error=self.products_error,
            )
        except ValidationError as error:
            first = error.errors()[0]
            said = f"hello() gave {first['input']!r} as {first['loc'][0]}, which no report can hold: {first['msg']}"
            raise AdapterUnavailable(f"--impl {self.impl}: {said}") from None
        report_file.start(self.report, line)

    def case_ids(self, globs: tuple[str, ...]) -> list[str]:
        """The cases that match any of the globs and the options."""
        return [case_id for case_id in self.asked if any(fnmatchcase(case_id, glob) for glob in globs)]

    def reproduce(self, case_id: str) -> str:
        """The command that puts one case again."""
        command = again(self.impl, self.profile, case_id, None if is_on_prompts(case_id) else self.tokens)
        default = self.fixtures.root == default_root()
        return command if default else f"{command} --fixtures-dir {shlex.quote(str(self.fixtures.root))}"


def _matches(question: str, pattern: str) -> bool:
    """Whether a pattern matches a question on a prompt, or the conversation it is about."""
    return fnmatchcase(question, pattern) or fnmatchcase(question.rpartition("/thinking-")[0], pattern)


_RUN = pytest.StashKey[Run]()
_FIXTURE_ERROR = "fixture_error"
_CASE_LINE = "case_line"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Faults of fixtures, options and environment end the run with one line and their exit code."""
    try:
        yield
    except (FixtureError, BadOption) as error:
        pytest.exit(str(error), returncode=BAD_INPUT)
    except AdapterUnavailable as error:
        pytest.exit(str(error), returncode=ENVIRONMENT)


class _StopAtFixtureError:
    """Ends the run at the first faulty fixture, in the process that reports: under xdist another one judges."""

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


def _reports(config: pytest.Config) -> bool:
    """Whether this process talks to the user: xdist's workers do not."""
    return not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Open the fixtures and the implementation, and probe its arithmetic."""
    if config.option.help:
        return
    if _reports(config):
        config.pluginmanager.register(_StopAtFixtureError())
    with _one_line_errors():
        run = config.stash[_RUN] = Run(config)
        if _reports(config) and run.report is not None and not config.option.collectonly:
            run.start_report()
            config.pluginmanager.register(_WritesReport(run.report))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Who is judged, on what, and how exact its products are."""
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
    """One test for each case of the module's `CASES`."""
    if "case_id" in metafunc.fixturenames:
        ids = metafunc.config.stash[_RUN].case_ids(metafunc.module.CASES)
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
        expected = run.known.reason(run.profile, case_id)
        try:
            verdict = run.judged(case_id)
        except FixtureError as error:
            request.node.user_properties.append((_FIXTURE_ERROR, str(error)))
            pytest.fail(str(error), pytrace=False)
        if run.report is not None:
            line = report_file.case_line(run.report, verdict, expected)
            request.node.user_properties.append((_CASE_LINE, line.model_dump_json()))
        if verdict.outcome in ("skip", "undecidable", "advice"):
            pytest.skip(verdict.note)
        elif verdict.outcome == "pass":
            if expected is not None:
                pytest.fail(f"{case_id} passes, but {run.known.path.name} lists it: delete the line", pytrace=False)
        elif expected is not None and run.known.explains(run.profile, case_id, verdict.outcome):
            pytest.xfail(expected)
        else:
            pytest.fail(describe(verdict, run.reproduce(case_id)), pytrace=False)

    return judge


def pytest_sessionfinish(session: pytest.Session) -> None:
    """An implementation that skips everything is not green, nor is a run that asked nothing."""
    if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and _reports(session.config):
        sys.stderr.write("no case that --cases leaves in belongs to the test files given: nothing was asked\n")
        session.exitstatus = BAD_INPUT
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _reports(session.config) and session.exitstatus == pytest.ExitCode.OK:
        stats = reporter.stats
        if stats.get("skipped") and not stats.get("passed") and not stats.get("xfailed"):
            sys.stderr.write("every case was skipped: nothing was shown to conform\n")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
