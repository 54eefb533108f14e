"""One run: an implementation in one profile, on the cases and prompts that patterns select."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import ValidationError

from conformance.adapters.base import DUMP
from conformance.adapters.external.limits import Limits
from conformance.adapters.registry import AdapterUnavailable, BadOption, create, hello_of
from conformance.fetch.cache import tokenizer_path
from conformance.judging import prompts
from conformance.judging.examine import CaseVerdict, Local, Outcome
from conformance.judging.judge import Judge
from conformance.judging.probe import require_exact_products
from conformance.judging.prompts import PromptJudge, PromptVerdict
from conformance.known_failures import Counted, KnownFailures, counts_as
from conformance.reporting import jsonl as report_file
from conformance.reporting.reproduce import rerun_command
from conformance.reporting.text import describe
from conformance.run.full_size import check_floors, with_weights
from gemma4_contract import FixtureError, Fixtures
from gemma4_contract.judged import judged_digest
from gemma4_contract.models import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class RunItem:
    """A case, or a question on prompts, of a run."""

    id: str
    level: Level
    topic: str
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The result of a case, small enough to be sent between processes."""

    case: str
    level: Level
    outcome: Outcome
    counts_as: Counted
    """The status of the outcome, given the known failures."""
    text: str
    """The text for the user."""
    seen: str
    """The failure in a few words."""
    line: report_file.CaseLine | None
    """The line of the report, if there is a report."""


class Session:
    """One run."""

    def __init__(
        self,
        impl: str,
        profile: str,
        *,
        patterns: Sequence[str] = ("*",),
        tokens: int | None = None,
        report: Path | None = None,
        root: Path | None = None,
        known: Path | None = None,
        limits: Limits | None = None,
        full_size: Callable[[Fixtures], Fixtures] | None = None,
    ) -> None:
        """Open the fixtures and the implementation, and probe its arithmetic.

        `full_size` opens the goldens of L5 instead of all others; only cases of models whose weights are there
        are asked. Raises BadOption, FixtureError or AdapterUnavailable.
        """
        if "" in patterns:
            raise BadOption("--cases: got '', expected a glob over case ids, such as '*rope*'")
        if tokens is not None and tokens < 1:
            raise BadOption(f"--tokens: got {tokens}, expected at least 1")
        if tokens is not None and report:
            raise BadOption("--report: got --tokens with it, expected one of them: a report is on whole cases")
        self.is_whole = "*" in patterns and tokens is None
        self.impl, self.profile, self.tokens, self.report = impl, profile, tokens, report
        small = Fixtures(root)
        self.fixtures = small if full_size is None else full_size(small)
        self.known = KnownFailures.of(impl) if known is None else _read_list(known, small.known_profiles)
        adapter = create(impl, limits, small.known_profiles)
        self.tokenizer = tokenizer_path() if tokenizer_path().is_file() else None
        self._prompt_judge = PromptJudge(self.fixtures.prompts, adapter, self.tokenizer)
        questions = list(self._prompt_judge.questions())
        if root is None and full_size is None:  # a part of the fixtures may lack the cases of a line
            self.known.check_used([*self.fixtures.case_ids, *questions])
        self.hello = hello_of(adapter, impl)
        if not self.hello.offers(profile):
            offered = ", ".join(self.hello.profiles or ())
            raise BadOption(f"--profile: got {profile}, expected one that {impl} offers: {offered}")
        self.products_error = require_exact_products(small, adapter, impl, profile)
        self._judge = Judge(self.fixtures, adapter, profile, _local_judge(self.fixtures, impl, profile))
        matching = (case_id for case_id in self.fixtures.case_ids if _matches(case_id, patterns))
        asked = [case_id for case_id in matching if self._judge.asks(case_id)]
        if self.fixtures.weights is not None and asked:
            asked = with_weights(self.fixtures, self.fixtures.weights, asked)
            check_floors(self.fixtures, asked, profile)
        cases = map(self.fixtures.case, asked)
        self._items = {
            case.id: RunItem(id=case.id, level=case.level, topic=case.topic, model=case.model) for case in cases
        }
        self._items |= {
            question: RunItem(id=question, level=prompts.LEVEL, topic=prompts.TOPIC)
            for question in questions
            if any(_matches(name, patterns) for name in (question, self._prompt_judge.document_of(question)))
        }
        if not self._items:
            raise FixtureError(
                "--cases",
                got=f"{' '.join(map(repr, patterns))}, which matches no case that is asked in profile {profile}",
                expected="a glob over case ids",
                cure="try '*rope*', or see `gemma4-conformance list`",
            )

    @property
    def items(self) -> list[RunItem]:
        """The cases, then the questions on prompts."""
        return list(self._items.values())

    def judge(self, case_id: str) -> Judged:
        """Judge one case, or one question on prompts; a known failure fails the run if it passes, and only then.

        A failed answer is stored beside the report. FixtureError for a faulty fixture.
        """
        item = self._items[case_id]
        on_prompts = item.topic == prompts.TOPIC
        verdict = self._prompt_judge.judge(case_id) if on_prompts else self._judge.judge(case_id, self.tokens)
        expected = self.known.expected(self.profile, case_id, verdict.outcome)
        return Judged(
            case=case_id,
            level=item.level,
            outcome=verdict.outcome,
            counts_as=counts_as(verdict.outcome, expected),
            text=self._failure_text(case_id, verdict, expected),
            seen=_in_few_words(verdict),
            line=None if self.report is None else report_file.case_line(self.report, verdict, expected),
        )

    def _failure_text(self, case_id: str, verdict: CaseVerdict | PromptVerdict, expected: str | None) -> str:
        if verdict.outcome == "pass":
            return f"{case_id} passes, but {self.known.path.name} lists it: delete the line" if expected else ""
        if verdict.outcome not in ("fail", "error"):
            return verdict.note
        return expected or describe(verdict, self.reproduce(case_id))

    def start_report(self) -> None:
        """Begin the report, if there is one."""
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
                fixtures=judged_digest(self.fixtures),
                full_size=report_file.full_size_of(self.fixtures),
                products_error=self.products_error,
            )
        except ValidationError as error:
            first = error.errors()[0]
            said = f"hello() gave {first['input']!r} as {first['loc'][0]}, which no report can hold: {first['msg']}"
            raise AdapterUnavailable(f"--impl {self.impl}: {said}") from None
        report_file.start(self.report, line)

    def on_topic(self, topic: str) -> list[str]:
        """The ids of the items on a topic."""
        return [item.id for item in self.items if item.topic == topic]

    def reproduce(self, case_id: str) -> str:
        """The command that asks one case again."""
        tokens = None if self._items[case_id].topic == prompts.TOPIC else self.tokens
        return rerun_command(self.fixtures, self.impl, self.profile, case_id, tokens)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _local_judge(fixtures: Fixtures, impl: str, profile: str) -> Local | None:
    """The local judgement, where there are a reference, weights and floors for it; a file of answers is judged chained.

    At full size the weights of a model fill the memory once already.
    """
    if impl.startswith(DUMP) or fixtures.weights is not None or not fixtures.local_floors_path(profile).is_file():
        return None
    try:
        from conformance.local.judge import LocalJudge
    except ModuleNotFoundError:
        return None
    return LocalJudge(fixtures, profile)


def _in_few_words(verdict: CaseVerdict | PromptVerdict) -> str:
    first = verdict.first_divergence if isinstance(verdict, CaseVerdict) else None
    return f"{first.name}: {first.fault}" if first else verdict.note


def _read_list(path: Path, profiles: Collection[str]) -> KnownFailures:
    """The user's own list, which must exist."""
    if not path.is_file():
        raise FixtureError(path, got="no file", expected="a list of known failures", cure="mend --known-failures")
    return KnownFailures.read(path, profiles)
