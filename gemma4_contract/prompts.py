"""The JSON files of `fixtures/prompts/`: conversations with their prompts, texts with their ids, published facts."""

from __future__ import annotations

import base64
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from gemma4_contract.documents import RESTORE, Document, Strict, read_model
from gemma4_contract.errors import FixtureError
from gemma4_contract.files import write_atomic
from gemma4_contract.models import CaseId, Digest

TEMPLATE_NAME = r"^(small|large)@\d{4}-\d{2}-\d{2}$"
TemplateName = Annotated[str, Field(pattern=TEMPLATE_NAME)]
Thinking = Literal["unset", "off", "on"]
Setting = tuple[str, bool | None, bool]
"""Template, `enable_thinking`, `add_generation_prompt`."""
THINKING: dict[Thinking, bool | None] = {"unset": None, "off": False, "on": True}


class Settings(Strict):
    """All combinations of the listed values: templates x thinking x with or without a generation prompt."""

    templates: list[TemplateName]
    enable_thinking: list[bool | None]
    add_generation_prompt: list[bool]

    def each(self) -> Iterator[Setting]:
        """Every combination as a `Setting`."""
        return itertools.product(self.templates, self.enable_thinking, self.add_generation_prompt)


class Prompt(Strict):
    """A text, its bytes and its ids."""

    text: str
    utf8_base64: str = Field(description="The bytes of the text, for readers whose JSON decoder changes strings.")
    ids: list[Annotated[int, Field(ge=0)]] = Field(description="By the published tokenizer.json; no token is added.")

    @classmethod
    def of(cls, text: str, ids: list[int]) -> Prompt:
        """The text with its bytes and these ids."""
        return cls(text=text, utf8_base64=base64.b64encode(text.encode()).decode(), ids=ids)

    @model_validator(mode="after")
    def _bytes_are_those_of_the_text(self) -> Prompt:
        if base64.b64encode(self.text.encode()).decode() != self.utf8_base64:
            raise ValueError(f"utf8_base64 is not that of the text {self.text[:40]!r}")
        return self


class Render(Strict):
    """The result of the templates for some settings: a prompt, or an error."""

    when: list[Settings]
    prompt: Prompt | None = None
    error: str | None = Field(
        default=None, description="The error of the template; a port must refuse in its own words."
    )

    @model_validator(mode="after")
    def _a_prompt_or_an_error(self) -> Render:
        if (self.prompt is None) == (self.error is None):
            raise ValueError("a render has a prompt or an error")
        return self


class Conversation(Document):
    """One conversation and its prompt under every template and setting (`chat/<name>.json`)."""

    id: CaseId
    purpose: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    preserve_thinking: bool = Field(
        default=False, description="Passed to the template: since 2026-07-09 it keeps the thoughts of older tool calls."
    )
    renders: list[Render]

    def render(self, template: str, enable_thinking: bool | None, add_generation_prompt: bool) -> Render:
        """The expected result for these settings; KeyError if none is recorded."""
        return self.by_setting[template, enable_thinking, add_generation_prompt]

    def settings(self) -> list[Setting]:
        """Every setting that a prompt is recorded for, sorted."""
        return sorted(self.by_setting, key=lambda setting: (setting[0], str(setting[1]), setting[2]))

    @functools.cached_property
    def by_setting(self) -> dict[Setting, Render]:
        """The expected result for every setting, in the order of the file."""
        return {setting: render for render in self.renders for when in render.when for setting in when.each()}


class Texts(Document):
    """Raw texts and their ids, for the tokenizer without a template (`text/<name>.json`)."""

    id: CaseId
    purpose: str
    items: list[Prompt]


class PublishedFile(Strict):
    """The digest of a file that is too large to ship, or that we may not ship."""

    sha256: Digest
    bytes: int


class PromptFacts(Document):
    """The published files that the prompts were made with (`facts.json`)."""

    templates: dict[TemplateName, PublishedFile] = Field(description="chat_template.jinja of each revision.")
    size_classes: dict[str, list[str]] = Field(description="Members of the family that share a template.")
    tokenizer: PublishedFile = Field(description="tokenizer.json of all -it models.")
    special_tokens: dict[str, int] = Field(description="The 24 added tokens, each of which is one id wherever it is.")
    stop_ids: list[int] = Field(
        description="eos_token_id of generation_config.json, which counts before the other declarations."
    )
    versions: dict[str, str]
    command: str


_Doc = TypeVar("_Doc", Conversation, Texts)


class Prompts:
    """The folder `prompts/` of the fixtures; it may be missing in a part of them."""

    def __init__(self, root: Path) -> None:
        self.root = root / "prompts"

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of all conversations and texts, sorted: `prompt/chat/<name>`, `prompt/text/<name>`."""
        return (*self.conversation_ids, *self.text_ids)

    @functools.cached_property
    def conversation_ids(self) -> tuple[str, ...]:
        """Ids of all conversations, sorted."""
        return self._ids("chat")

    @functools.cached_property
    def text_ids(self) -> tuple[str, ...]:
        """Ids of all raw texts, sorted."""
        return self._ids("text")

    def _ids(self, folder: str) -> tuple[str, ...]:
        return tuple(sorted(f"prompt/{folder}/{path.stem}" for path in (self.root / folder).glob("*.json")))

    def path(self, prompt_id: str) -> Path:
        """The file of an id."""
        return self.root / f"{prompt_id.removeprefix('prompt/')}.json"

    @functools.cache  # noqa: B019 (prompts live as long as the run)
    def conversation(self, prompt_id: str) -> Conversation:
        """The conversation with this id; FixtureError if it is missing, invalid or names another id."""
        return self._checked(prompt_id, read_model(self.path(prompt_id), Conversation))

    @functools.cache  # noqa: B019 (as above)
    def texts(self, prompt_id: str) -> Texts:
        """The texts with this id; FixtureError as for a conversation."""
        return self._checked(prompt_id, read_model(self.path(prompt_id), Texts))

    def document(self, prompt_id: str) -> Conversation | Texts:
        """The conversation or the texts with this id."""
        return self.texts(prompt_id) if prompt_id in self.text_ids else self.conversation(prompt_id)

    def facts(self) -> PromptFacts:
        """The published files that the prompts were made with."""
        return read_model(self.root / "facts.json", PromptFacts)

    def faults(self) -> Iterator[FixtureError]:
        """The faults of all files in the folder."""
        for prompt_id in self.ids:
            try:
                self.document(prompt_id)
            except FixtureError as error:
                yield error
        if self.ids:
            try:
                self.facts()
            except FixtureError as error:
                yield error

    def _checked(self, prompt_id: str, document: _Doc) -> _Doc:
        if document.id != prompt_id:
            path = self.path(prompt_id)
            raise FixtureError(path, got=f"id {document.id!r}", expected=f"its path {prompt_id!r}", cure=RESTORE)
        return document


def write_prompts(path: Path, value: Conversation | Texts | PromptFacts) -> None:
    """Write a document with one line for each key, and one for each object of a list.

    Objects keep the order of their keys, because two keys that differ only in case are rendered in this order.
    """
    dumped = {"format": value.format} | value.model_dump(mode="json", exclude_defaults=True)
    lines = [f"{_compact(key)}: {_lines(item)}" for key, item in dumped.items()]
    write_atomic(path, ("{\n " + ",\n ".join(lines) + "\n}\n").encode())


def _lines(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n  " + ",\n  ".join(map(_compact, value)) + "\n ]"
    return _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
