"""The changes from an earlier report to this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conformance.reporting.jsonl import CaseLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A case with another outcome, or one that only one of the reports has (the other has "-")."""

    case: str
    before: str
    now: str

    @property
    def worse(self) -> bool:
        """Whether the case was right, or not asked, and is wrong now."""
        return self.now in ("fail", "error") and self.before not in ("fail", "error")


def changes(old: Mapping[str, CaseLine], new: Mapping[str, CaseLine]) -> list[Change]:
    """The changes; cases that got worse come first."""
    pairs = (Change(case=case, before=_outcome(old.get(case)), now=_outcome(new.get(case))) for case in {**old, **new})
    return sorted((change for change in pairs if change.before != change.now), key=lambda change: not change.worse)


def _outcome(line: CaseLine | None) -> str:
    return line.outcome if line else "-"
