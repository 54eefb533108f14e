"""The interface between the judge and an implementation: requests and answers.

The in-process adapters implement `Adapter` directly, and `PromptAdapter` where the implementation builds prompts; the
goldens never reach them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gemma4_contract import Plan
from gemma4_contract.tensors import Array as Array

PORT, ONE_SHOT, DUMP, MUTANT = "port:", "once:", "dump:", "mutant:"
"""Prefixes of --impl: a command driven by lines, a command started for each case, a file of answers, a mutant."""


class Skip(Exception):
    """The implementation does not offer what was asked; the message says why in a few words."""


class Refused(Exception):
    """The implementation says that it cannot build a prompt of this conversation; the message says why."""


class PortFault(Exception):
    """A port in another process did not answer properly; the message is one line that says what it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The name and version of the implementation, and what it offers."""

    name: str
    version: str
    language: str
    family: str
    profiles: tuple[str, ...] | None
    """The profiles that it offers; None if it did not say, which means every profile."""
    kinds: tuple[str, ...] | None
    """The kinds of cases that it answers; None if it did not say, which means every kind."""
    device: str

    def offers(self, profile: str) -> bool:
        """Whether the implementation may be asked in a profile."""
        return self.profiles is None or profile in self.profiles

    def offers_kind(self, kind: str) -> bool:
        """Whether the implementation may be asked cases of a kind."""
        return self.kinds is None or kind in self.kinds

    @classmethod
    def offering_everything(cls, name: str, device: str) -> Hello:
        """Hello for an adapter that sends none; it is assumed to offer every profile and kind."""
        return cls(
            name=name,
            version="",
            language="unknown",
            family="other",
            profiles=None,
            kinds=None,
            device=device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question: a case without its expected values."""

    case: str
    kind: str
    profile: str
    model_dir: Path | None = None
    plan: Plan | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Array] = field(default_factory=dict)
    want: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """A conversation to be written as a prompt; `enable_thinking` is None if the user leaves it unset."""

    messages: Sequence[Mapping[str, Any]]
    template: str
    tools: Sequence[Mapping[str, Any]] | None = None
    enable_thinking: bool | None = None
    add_generation_prompt: bool = True
    preserve_thinking: bool = False

    def settings(self) -> dict[str, Any]:
        """All but messages and template, by the names that chat templates give them."""
        return {
            "tools": self.tools,
            "enable_thinking": self.enable_thinking,
            "add_generation_prompt": self.add_generation_prompt,
            "preserve_thinking": self.preserve_thinking,
        }


class Adapter(Protocol):
    """An implementation under test."""

    def hello(self) -> Hello:
        """The name and version of the implementation, and what it offers."""
        ...

    def run(self, request: Request) -> dict[str, Array]:
        """The taps that the implementation offers of `request.want`, by name, in any float dtype.

        Raises Skip when it cannot answer at all.
        """
        ...


@runtime_checkable
class PromptAdapter(Protocol):
    """An implementation that writes prompts and has a tokenizer."""

    def prompt(self, request: PromptRequest) -> str:
        """The prompt as text. Raises Refused, or Skip when it has not this template."""
        ...

    def encode(self, text: str, tokenizer_json: Path) -> list[int]:
        """The ids of a text by this tokenizer, with no token added. Raises Skip when it has none."""
        ...
