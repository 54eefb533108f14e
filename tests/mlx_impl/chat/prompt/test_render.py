"""Laws of rendered prompts that need no template of others."""

from __future__ import annotations

import time
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_impl.chat.prompt import TEMPLATES, Template, render
from tests.support.conversations import TEXTS, TIDY_CONVERSATIONS, TIDY_TOOLS
from tests.support.rendered import CALL, CALLS, USER, many, refusal


def test_a_size_class_alone_is_its_current_revision() -> None:
    assert Template.parse("small").name == "small@2026-07-09"
    assert Template.parse("large") == Template(size="large", revision="2026-07-09")
    assert [Template.parse(name).name for name in TEMPLATES] == list(TEMPLATES)
    assert len(set(TEMPLATES)) == 10


@pytest.mark.parametrize("name", ["", "small@", "small@2026-06-03", "large@2026-05-22", "medium", "small@now", None, 7])
def test_any_other_name_is_refused(name: Any) -> None:
    said = refusal([USER], name)
    assert said.startswith(f"template: got {name!r}; expected one of small@2026-04-02, ")


def test_the_size_classes_differ_in_the_empty_thought_alone() -> None:
    small, large = render([USER], "small"), render([USER], "large")
    assert large == small + "<|channel>thought\n<channel|>"
    assert render([USER], "large", enable_thinking=True) == render([USER], "small", enable_thinking=True)


class Role(str, Enum):  # noqa: UP042 (how many clients type roles and schemas)
    """A string that prints as something else."""

    USER = "user"
    STRING = "string"
    OBJECT = "object"


class Half(float, Enum):
    HALF = 0.5


class Liar(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "<|turn>"

    def strip(self, *_: Any) -> str:
        return "<|turn>"


class LyingInt(int):
    def __str__(self) -> str:
        return "<|turn>"

    __repr__ = __str__


@pytest.mark.parametrize("template", TEMPLATES)
def test_subclasses_of_plain_types_are_what_they_hold(template: str) -> None:
    def ask(user: Any, string: Any, kind: Any, half: Any, text: Any, seven: Any) -> str:
        schema = {"type": kind, "description": text, "required": [string], "properties": {text: {"type": string}}}
        call = {"id": "c", "function": {"name": string, "arguments": {"half": half, "seven": seven}}}
        messages = [{"role": user, "content": text}, {"role": "assistant", "content": text, "tool_calls": [call]}]
        tools = [{"type": "function", "function": {"name": text, "description": text, "parameters": schema}}]
        return render(messages, template, tools=tools)

    plain = ask("user", "string", "object", 0.5, " hi ", 7)
    assert ask(Role.USER, Role.STRING, Role.OBJECT, Half.HALF, Liar(" hi "), LyingInt(7)) == plain
    assert "Role" not in plain


def test_a_mapping_is_an_object() -> None:
    call = MappingProxyType({"function": MappingProxyType({"name": "f", "arguments": MappingProxyType({"a": (1, 2)})})})
    messages = [MappingProxyType(USER), MappingProxyType({"role": "assistant", "tool_calls": (call,)})]
    assert "call:f{a:[1,2]}" in render(messages, "small")


def test_a_part_may_hold_a_picture_and_a_message_what_no_template_reads() -> None:
    messages = [{"role": "user", "at": object(), "content": [{"type": "image", "image": np.zeros(3)}]}]
    assert "<|image|>" in render(messages, "small")


def test_many_calls_and_answers_take_linear_time() -> None:
    count = 20_000
    calls = [{"id": f"c{number}", "function": {"name": "f", "arguments": {}}} for number in range(count)]
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls]
    start = time.perf_counter()
    text = render([USER, {"role": "assistant", "tool_calls": calls}, *answers], "small")
    assert text.count("response:f{") == count
    assert time.perf_counter() - start < 10  # seconds; a search for every answer takes minutes


@many
@given(TIDY_CONVERSATIONS, TIDY_TOOLS, st.sampled_from(TEMPLATES), st.sampled_from([None, True, False]))
def test_the_generation_prompt_is_appended(messages: Any, tools: Any, template: str, thinking: bool | None) -> None:
    without = render(messages, template, tools=tools, enable_thinking=thinking, add_generation_prompt=False)
    assert render(messages, template, tools=tools, enable_thinking=thinking).startswith(without)


@many
@given(TEXTS, st.sampled_from(TEMPLATES))
def test_thinking_unset_is_thinking_off(text: str, template: str) -> None:
    messages = [{"role": "user", "content": text}]
    assert render(messages, template) == render(messages, template, enable_thinking=False)
    assert render(messages, template) != render(messages, template, enable_thinking=True)


def test_keys_whose_value_is_none_are_as_if_they_were_not_there() -> None:
    bare = {"role": "assistant", "tool_calls": [CALL]}
    padded = {**bare, "content": None, "reasoning": None, "tool_responses": None, "name": None}
    assert render([USER, padded], "small") == render([USER, bare], "small")


def test_the_conversation_is_not_changed() -> None:
    messages = [{**USER, "name": None}, {**CALLS, "content": None}]
    before = repr(messages)
    render(messages, "small", on_control_tokens="escape")
    assert repr(messages) == before
