"""What the judge asks of an implementation, and what it gets back.

The in-process adapters implement `Adapter` directly, and `PromptAdapter` where the implementation builds prompts; the
goldens never reach them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from gemma4_contract import Plan
from gemma4_contract.models import Kind, Profile

Array = npt.NDArray[Any]
PORT, ONE_SHOT, DUMP, MUTANT = "port:", "once:", "dump:", "mutant:"
"""In the place of an implementation's name: a command asked by lines, one started for each case, a file of answers."""


class Skip(Exception):
    """The implementation does not offer what was asked; the message says why in a few words."""


class Refused(Exception):
    """The implementation says that it cannot build a prompt of this conversation; the message says why."""


class PortFault(Exception):
    """A port that is driven from outside did not answer as it should; the message is one line that says what it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who the implementation is and what it offers."""

    name: str
    version: str
    language: str
    family: str
    profiles: tuple[str, ...]
    kinds: tuple[str, ...]
    device: str

    @classmethod
    def of_stranger(cls, name: str, device: str) -> Hello:
        """Of one that says nothing of itself, and is asked everything."""
        return cls(
            name=name,
            version="",
            language="unknown",
            family="other",
            profiles=get_args(Profile),
            kinds=get_args(Kind),
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
    """A conversation to be written as a prompt; `enable_thinking` None is what a user says who says nothing."""

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


def checked_answer(answer: object) -> dict[str, Array]:
    """The answer, if it is a dict of NumPy arrays; TypeError saying what came in the place of one."""
    if not isinstance(answer, dict):
        raise TypeError(f"got {type(answer).__name__} as answer, expected a dict of tap name to numpy.ndarray")
    for name, value in answer.items():
        if not isinstance(value, np.ndarray):
            raise TypeError(f"got {type(value).__name__} for tap {name}, expected numpy.ndarray")
    return answer


class Adapter(Protocol):
    """An implementation under test."""

    def hello(self) -> Hello:
        """Who the implementation is and what it offers."""
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
        """The ids of a text as it is, by this tokenizer. Raises Skip when it has none."""
        ...
