"""The lines that the judge and an adapter exchange: one JSON object each, the judge's first.

Readers ignore keys that they do not know, so that a later version may add some. Tensors travel as safetensors files.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reference.format.models import Plan, Profile

VERSION = 1


class Line(BaseModel):
    """One line; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Hello(Line):
    """The judge's first line."""

    cmd: Literal["hello"] = "hello"
    protocol: Literal[1] = 1


class Implementation(Line):
    """Who answers."""

    name: str
    version: str
    language: str
    homepage: str | None = None


class HelloAnswer(Line):
    """What an implementation is and offers."""

    protocol: Literal[1]
    implementation: Implementation
    family: str = Field(default="other", description="Implementations of one family share their kernels.")
    device: str = "unknown"
    profiles: list[Profile] = Field(min_length=1)
    internal: Literal["f64", "f32", "bf16", "f16"] | None = Field(
        default=None, description="What sums are kept in, where that is more than the profile."
    )
    kinds: list[str] = Field(min_length=1, description="Kinds of cases that it can be asked.")


class Load(Line):
    """Load an ordinary checkpoint (config.json and safetensors); the cases that follow are of this model."""

    cmd: Literal["load"] = "load"
    model_dir: str


class LoadAnswer(Line):
    """Whether it is loaded."""

    ok: Literal[True] | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> LoadAnswer:
        if (self.ok is None) == (self.error is None):
            raise ValueError('expected "ok": true or "error"')
        return self


class Run(Line):
    """One case without its goldens."""

    cmd: Literal["run"] = "run"
    seq: int
    case: str
    kind: str
    profile: Profile
    plan: Plan | None = None
    params: dict[str, Any] = {}
    inputs: str | None = Field(default=None, description="A safetensors file: F32, I32 and U8 tensors.")
    want: list[str] = Field(description="Taps to write, as far as they are offered.")
    out: str = Field(description="The safetensors file to write before answering.")


class RunAnswer(Line):
    """What became of a case."""

    seq: int
    ok: Literal[True] | None = None
    ms: float | None = Field(default=None, description="The port's own computing time.")
    skipped: str | None = Field(default=None, description="Why it cannot be asked this.")
    error: str | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> RunAnswer:
        if [self.ok, self.skipped, self.error].count(None) != 2:
            raise ValueError('expected one of "ok": true, "skipped" and "error"')
        return self


class PromptCommand(Line):
    """One conversation to be written as a prompt."""

    cmd: Literal["prompt"] = "prompt"
    seq: int
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    template: str
    enable_thinking: bool | None = Field(default=None, description="null is what a user says who says nothing.")
    add_generation_prompt: bool = True
    preserve_thinking: bool = False


class PromptAnswer(Line):
    """The prompt, or why there is none."""

    seq: int
    text: str | None = None
    refused: str | None = Field(default=None, description="The conversation cannot be written.")
    skipped: str | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _one_of_four(self) -> PromptAnswer:
        if [self.text, self.refused, self.skipped, self.error].count(None) != 3:
            raise ValueError('expected one of "text", "refused", "skipped" and "error"')
        return self


class Tokenize(Line):
    """A text to be encoded as it is: no token is added."""

    cmd: Literal["tokenize"] = "tokenize"
    seq: int
    text: str
    tokenizer: str = Field(description="The published tokenizer.json.")


class TokenizeAnswer(Line):
    """The ids of a text."""

    seq: int
    ids: list[Annotated[int, Field(strict=True)]] | None = None
    skipped: str | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> TokenizeAnswer:
        if [self.ids, self.skipped, self.error].count(None) != 2:
            raise ValueError('expected one of "ids", "skipped" and "error"')
        return self


class Stop(Line):
    """The last line: the adapter exits with 0."""

    cmd: Literal["stop"] = "stop"


REQUESTS = (Hello, Load, Run, PromptCommand, Tokenize, Stop)
"""What the judge says; `Stop` has no answer."""
ANSWERS = (HelloAnswer, LoadAnswer, RunAnswer, PromptAnswer, TokenizeAnswer)
"""What an adapter says."""
