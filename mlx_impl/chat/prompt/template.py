"""The ten published chat templates, by size class and date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from mlx_impl.errors import MlxImplError, problem, shown

Size = Literal["small", "large"]

LAUNCH = "2026-04-02"
TOOL_TURNS = "2026-04-10"
SYSTEM_PARTS = "2026-04-28"
TOOL_MEDIA = "2026-05-22"
TURN_CLOSING = "2026-07-09"

REVISIONS: dict[Size, tuple[str, ...]] = {
    "small": (LAUNCH, TOOL_TURNS, SYSTEM_PARTS, TOOL_MEDIA, TURN_CLOSING),
    "large": (LAUNCH, TOOL_TURNS, SYSTEM_PARTS, "2026-06-03", TURN_CLOSING),
}
"""Size class -> the dates on which its template was published; the last one is the current template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One revision of one size class: `small` is E2B and E4B, `large` is 12B, 26B-A4B and 31B."""

    size: Size
    revision: str

    def __post_init__(self) -> None:
        """Raise MlxImplError unless this template was published."""
        if self.name not in TEMPLATES:
            raise _unknown(self.name)

    @classmethod
    def parse(cls, name: str) -> Self:
        """The template of a name such as `small@2026-07-09`, or `small` for the current one. Raises MlxImplError."""
        size, at, revision = name.partition("@") if isinstance(name, str) else ("", "", "")
        for known, revisions in REVISIONS.items():
            if size == known and (revision in revisions or not at):
                return cls(size=known, revision=revision or revisions[-1])
        raise _unknown(name)

    @property
    def name(self) -> str:
        """The name, such as `small@2026-07-09`."""
        return f"{self.size}@{self.revision}"

    def since(self, revision: str) -> bool:
        """Whether this template is of this revision or a later one; ISO dates compare as strings."""
        return self.revision >= revision


TEMPLATES = tuple(f"{size}@{revision}" for size, revisions in REVISIONS.items() for revision in revisions)
"""The names of all templates, oldest first within a size class."""


def _unknown(name: object) -> MlxImplError:
    return problem("template", got=shown(name), expected=f"one of {', '.join(TEMPLATES)}", cure="name one of them")
