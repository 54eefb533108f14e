"""The lines that the judge and an adapter exchange; each line is a JSON object, and the judge begins.

Readers ignore keys that they do not know, so that a later version can add keys. Tensors are in safetensors files.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gemma4_contract.models import Plan
from gemma4_contract.profiles import KnownProfile, ProfileId

VERSION = 1


class Line(BaseModel):
    """One line; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Answer(Line):
    """An answer with exactly one of several keys, which says how it went."""

    ways: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(getattr(self, way) is not None for way in self.ways) != 1:
            *names, last = ['"ok": true' if way == "ok" else f'"{way}"' for way in self.ways]
            several = f"one of {', '.join(names)} and {last}" if len(names) > 1 else f"{names[0]} or {last}"
            raise ValueError(f"expected {several}")
        return self


class Hello(Line):
    """The judge's first line."""

    cmd: Literal["hello"] = "hello"
    protocol: Literal[1] = 1


class Implementation(Line):
    """The name and version of the port."""

    name: str
    version: str
    language: str
    homepage: str | None = None


class HelloAnswer(Line):
    """The port, and what it offers."""

    protocol: Literal[1]
    implementation: Implementation
    family: str = Field(default="other", description="Implementations of one family share their kernels.")
    device: str = "unknown"
    profiles: list[KnownProfile] = Field(min_length=1)
    internal: KnownProfile | None = Field(
        default=None, description="The profile that sums are kept in, if it is wider than the profile of the run."
    )
    kinds: list[str] = Field(min_length=1, description="Kinds of cases that it offers.")


class Load(Line):
    """Load an ordinary checkpoint (config.json and safetensors); the cases that follow are of this model."""

    cmd: Literal["load"] = "load"
    model_dir: str


class LoadAnswer(Answer):
    """Whether the checkpoint was loaded."""

    ways = ("ok", "error")

    ok: Literal[True] | None = None
    error: str | None = None


class Run(Line):
    """One case without its goldens."""

    cmd: Literal["run"] = "run"
    seq: int
    case: str
    kind: str
    profile: ProfileId
    plan: Plan | None = None
    params: dict[str, Any] = {}
    inputs: str | None = Field(default=None, description="A safetensors file: F32, I32 and U8 tensors.")
    want: list[str] = Field(description="Taps to write; a tap that the port does not offer is left out.")
    out: str = Field(description="The safetensors file to write before answering.")


class RunAnswer(Answer):
    """The result of a case."""

    ways = ("ok", "skipped", "error")

    seq: int
    ok: Literal[True] | None = None
    ms: float | None = Field(default=None, description="The port's own computing time.")
    skipped: str | None = Field(default=None, description="Why the port does not offer this case.")
    error: str | None = None


class PromptCommand(Line):
    """One conversation to be written as a prompt."""

    cmd: Literal["prompt"] = "prompt"
    seq: int
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    template: str
    enable_thinking: bool | None = Field(default=None, description="null: the caller gives no value.")
    add_generation_prompt: bool = True
    preserve_thinking: bool = False


class PromptAnswer(Answer):
    """The prompt, or the reason why there is none."""

    ways = ("text", "refused", "skipped", "error")

    seq: int
    text: str | None = None
    refused: str | None = Field(default=None, description="The conversation cannot be written.")
    skipped: str | None = None
    error: str | None = None


class Tokenize(Line):
    """A text to be encoded; no token is added."""

    cmd: Literal["tokenize"] = "tokenize"
    seq: int
    text: str
    tokenizer: str = Field(description="The published tokenizer.json.")


class TokenizeAnswer(Answer):
    """The ids of a text."""

    ways = ("ids", "skipped", "error")

    seq: int
    ids: list[Annotated[int, Field(strict=True)]] | None = None
    skipped: str | None = None
    error: str | None = None


class Stop(Line):
    """The last line: the adapter exits with 0."""

    cmd: Literal["stop"] = "stop"


REQUESTS = (Hello, Load, Run, PromptCommand, Tokenize, Stop)
"""Lines of the judge; `Stop` has no answer."""
ANSWERS = (HelloAnswer, LoadAnswer, RunAnswer, PromptAnswer, TokenizeAnswer)
"""Lines of an adapter."""
