"""Known failures, with explanation and source: a strict list for each implementation."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from conformance.adapters.base import ONE_SHOT, PORT
from gemma4_contract import FixtureError
from gemma4_contract.files import write_atomic
from gemma4_contract.profiles import installed_profiles

Counted = Literal["pass", "fail", "skip", "known"]


def counts_as(outcome: str, expected: str | None) -> Counted:
    """The status of a verdict; `expected` is the reason in the list, None if it is not listed. A listed pass fails."""
    if outcome in ("skip", "undecidable", "advice"):
        return "skip"
    if outcome == "pass":
        return "pass" if expected is None else "fail"
    return "fail" if expected is None else "known"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailure:
    """One line of the list."""

    profile: str
    cases: str
    stops: bool
    """Whether the implementation gives no answer, instead of a wrong one."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailures:
    """The list of one implementation; empty where there is no file."""

    path: Path
    entries: tuple[KnownFailure, ...]

    @classmethod
    def read(cls, path: Path, profiles: Collection[str] | None = None) -> KnownFailures:
        """Read a list; FixtureError naming the first line that is not `<profile> <case glob> [stops]  # reason`.

        `profiles` are the profiles that a line may name: None means those of the installed fixtures.
        """
        if not path.exists():
            return cls(path=path, entries=())
        entries, known = [], installed_profiles() if profiles is None else profiles
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            entry, _, reason = line.partition("#")
            words = entry.split()
            shape = words[2:] in ([], ["stops"]) and len(words) > 1
            if not shape or words[0] not in known or not reason.strip():
                raise FixtureError(
                    f"{path}:{number}",
                    got=repr(line),
                    expected="<profile> <case glob> [stops]  # reason with a link",
                    cure="mend or delete the line",
                )
            entries.append(KnownFailure(profile=words[0], cases=words[1], stops=len(words) > 2, reason=reason.strip()))
        return cls(path=path, entries=tuple(entries))

    @classmethod
    def of(cls, impl: str) -> KnownFailures:
        """The shipped list of an implementation; empty for a command."""
        if impl.startswith((PORT, ONE_SHOT)):
            return cls(path=Path("known_failures.txt"), entries=())
        return cls.read(Path(__file__).parent / f"{impl.replace(':', '.')}.txt")

    @staticmethod
    def write(path: Path, profile: str, failures: Iterable[tuple[str, bool, str]]) -> int:
        """Write a list of failures (case, whether it stops, what was seen), one line each; return their number.

        A list is for explained failures: what was seen must be replaced by the reason.
        """
        lines = [
            f"{profile} {case_id}{' stops' if stops else ''}  # explain: {' '.join(seen.split())}\n"
            for case_id, stops, seen in failures
        ]
        write_atomic(path, "".join(lines).encode("utf-8", "backslashreplace"))
        return len(lines)

    def reason(self, profile: str, case_id: str) -> str | None:
        """Why this case is expected to fail; None when it is not."""
        entry = self._entry(profile, case_id)
        return None if entry is None else entry.reason

    def explains(self, profile: str, case_id: str, outcome: str) -> bool:
        """Whether this outcome is the listed one: a wrong answer, or with `stops` no answer."""
        entry = self._entry(profile, case_id)
        return entry is not None and outcome == ("error" if entry.stops else "fail")

    def expected(self, profile: str, case_id: str, outcome: str) -> str | None:
        """The reason; None if the case fails in another way than the list says."""
        another = outcome in ("fail", "error") and not self.explains(profile, case_id, outcome)
        return None if another else self.reason(profile, case_id)

    def _entry(self, profile: str, case_id: str) -> KnownFailure | None:
        for entry in self.entries:
            if entry.profile == profile and fnmatchcase(case_id, entry.cases):
                return entry
        return None

    def check_used(self, case_ids: Iterable[str]) -> None:
        """FixtureError for a line that matches no case."""
        ids = list(case_ids)
        for entry in self.entries:
            if not any(fnmatchcase(case_id, entry.cases) for case_id in ids):
                raise FixtureError(
                    self.path, got=f"{entry.cases}, which matches no case", expected="a case id", cure="delete the line"
                )
