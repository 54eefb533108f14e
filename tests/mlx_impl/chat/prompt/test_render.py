"""The builder's own promises: clear errors, control tokens, laws that need no template."""

from __future__ import annotations

import inspect
import re
import sys
import time
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlx_impl import MlxImplError
from mlx_impl.chat.prompt import CONTROL_TOKENS, POLICIES, TEMPLATES, Template, render
from tests.support.conversations import ANYTHING, TEXTS, TIDY_CONVERSATIONS, TIDY_TOOLS

many = settings(max_examples=15 * settings().max_examples)
USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def text_of(messages: Any, template: str, **arguments: Any) -> str:
    """The prompt, or "" where it is refused in one line: anything else fails the test that asks."""
    try:
        text = render(messages, template, **arguments)
    except MlxImplError as error:
        text = ""
        said = str(error)
    else:
        said = ""
    assert "\n" not in said
    assert text == "" or text.encode().startswith(b"<bos>")
    return text


def refusal(messages: Any, template: str = "small", **arguments: Any) -> str:
    with pytest.raises(MlxImplError) as caught:
        render(messages, template, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Templates


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


# Refusals


REFUSED = {
    "no list": ("Hi", "messages: got 'Hi'; expected a list of at least one message"),
    "no message": ([], "messages: got []; expected a list of at least one message"),
    "no object": (["Hi"], "messages[0]: got 'Hi'; expected an object with role and content"),
    "no role": ([{"content": "Hi"}], "messages[0].role: got None; expected one of system, developer, user,"),
    "unknown role": ([{"role": "wizard", "content": "Hi"}], "messages[0].role: got 'wizard'; expected one of"),
    "role that cannot be hashed": ([{"role": ["user"], "content": "Hi"}], "messages[0].role: got ['user']; expected"),
    "content": ([{"role": "user", "content": 7}], "messages[0].content: got 7; expected a string or a list of parts"),
    "content that is an object": (
        [{"role": "user", "content": {"type": "text", "text": "Hi"}}],
        "messages[0].content: got {'type': 'text', 'text': 'Hi'}; expected a string or a list of parts",
    ),
    "part": ([{"role": "user", "content": ["Hi"]}], "messages[0].content[0]: got 'Hi'; expected a part such as"),
    "part of unknown type": (
        [{"role": "user", "content": [{"type": "smell"}]}],
        "messages[0].content[0].type: got 'smell'; expected text, image, audio, video, and since 2026-07-09 image_url",
    ),
    "part without text": (
        [{"role": "user", "content": [{"type": "text"}]}],
        "messages[0].content[0].text: got None; expected a string",
    ),
    "image in the system turn": (
        [{"role": "system", "content": [{"type": "image"}]}, USER],
        "messages[0].content[0]: got {'type': 'image'}; expected a text part",
    ),
    "answer before any call": ([{"role": "tool", "content": "x"}], "messages[0]: got a tool's answer without a call"),
    "answer without a call": (
        [USER, {"role": "assistant", "content": "Hm."}, {"role": "tool", "content": "x"}],
        "messages[2]: got a tool's answer without a call before it",
    ),
    "answer beside a native one": (
        [USER, {**CALLS, "tool_responses": [{"name": "f", "response": "x"}]}, {"role": "tool", "content": "x"}],
        "messages[2]: got a tool's answer without a call before it",
    ),
    "answer that is an object": (
        [USER, CALLS, {"role": "tool", "tool_call_id": "c", "content": {"a": 1}}],
        "messages[2].content: got {'a': 1}; expected a string or a list of parts: write an object as JSON",
    ),
    "calls that are no list": ([{**CALLS, "tool_calls": "f"}], "messages[0].tool_calls: got 'f'; expected a list"),
    "call without a function": (
        [{**CALLS, "tool_calls": [{}]}],
        "messages[0].tool_calls[0].function.name: got none; expected a string",
    ),
    "arguments as a string": (
        [{**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}],
        "messages[0].tool_calls[0].function.arguments: got '{\"a\": 1}'; expected an object (or null): parse a JSON",
    ),
    "arguments that are no JSON": (
        [{**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": {"a": {1, 2}}}}]}],
        "messages[0].tool_calls[0].function.arguments.a: got {1, 2}; expected a JSON value",
    ),
    "arguments that are not finite": (
        [{**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": {"a": float("nan")}}}]}],
        "messages[0].tool_calls[0].function.arguments.a: got nan; expected a JSON value",
    ),
    "arguments with keys that are no strings": (
        [{**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": {1: 2}}}]}],
        "messages[0].tool_calls[0].function.arguments: got the key 1; expected keys that are strings",
    ),
    "reasoning": (
        [USER, {"role": "assistant", "content": "", "reasoning": ["x"]}],
        "messages[1].reasoning: got ['x']; expected a string",
    ),
    "lone surrogate": (
        [{"role": "user", "content": "a\ud800b"}],
        "messages[0].content: got the lone surrogate '\\ud800' in 'a\\ud800b'; expected text that UTF-8 can hold",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_refused_in_one_line(name: str) -> None:
    messages, beginning = REFUSED[name]
    assert refusal(messages).startswith(beginning)


@pytest.mark.parametrize(
    ("tools", "beginning"),
    [
        ("f", "tools: got 'f'; expected a list"),
        ([{}], "tools[0].function: got none; expected an object with name and parameters"),
        ([{"function": "f"}], "tools[0].function: got 'f'; expected an object"),
        ([{"function": {}}], "tools[0].function.name: got none; expected a string"),
        (
            [{"function": {"name": "f", "parameters": {"properties": ["a"]}}}],
            "tools[0].function.parameters.properties: got ['a']; expected an object",
        ),
        (
            [{"function": {"name": "f", "parameters": {"required": 7}}}],
            "tools[0].function.parameters.required: got 7; expected a list",
        ),
        (
            [{"function": {"name": "f", "description": b"x"}}],
            "tools[0].function.description: got b'x'; expected a JSON value",
        ),
    ],
)
def test_tools_that_are_none_are_refused(tools: Any, beginning: str) -> None:
    assert refusal([USER], tools=tools).startswith(beginning)


def test_parts_that_an_old_template_would_drop_are_refused() -> None:
    picture = {"role": "tool", "tool_call_id": "c", "content": [{"type": "image"}]}
    assert "small@2026-04-28 drops other parts of a tool's answer" in refusal(
        [USER, CALLS, picture], "small@2026-04-28"
    )
    assert render([USER, CALLS, picture], "small@2026-05-22").endswith("<tool_response|><|image|>")
    url = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    assert "small@2026-05-22 drops others" in refusal([url], "small@2026-05-22")
    assert "<|image|>" in render([url], "small@2026-07-09")


def test_values_nested_without_end_are_refused() -> None:
    deep: Any = "x"
    schema: Any = {"type": "string"}
    for _ in range(2000):
        deep, schema = [deep], {"type": "object", "properties": {"a": schema}}
    call = {"function": {"name": "f", "arguments": {"a": deep}}}
    assert "values nested deeper than 104" in refusal([{**CALLS, "tool_calls": [call]}])
    assert "values nested deeper than 104" in refusal([USER], tools=[{"function": {"name": "f", "parameters": schema}}])
    described = {"function": {"name": "f", "description": deep}}
    assert "values nested deeper than 104" in refusal([USER], tools=[described])
    endless: list[Any] = []
    endless.append(endless)
    assert "values nested deeper than 104" in refusal([{**CALLS, "tool_calls": endless}])


def test_an_int_that_python_does_not_print_is_refused() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 10**5000}}}
    assert "an int of thousands of digits" in refusal([{**CALLS, "tool_calls": [call]}])


def test_a_stack_that_is_nearly_full_is_an_error_and_no_crash() -> None:
    deep: Any = "x"
    for _ in range(90):
        deep = [deep]
    messages = [USER, {**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": {"a": deep}}}]}]

    def at_depth(frames: int) -> str:
        return at_depth(frames - 1) if frames else text_of(messages, "small")

    assert at_depth(1).startswith("<bos>")
    room = sys.getrecursionlimit() - len(inspect.stack())
    assert at_depth(room - 120) == ""


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


class Unreadable(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": 10**5000}],
        [{"role": "user", "content": 10**5000}],
        [{"role": "user", "content": Unprintable()}],
        [Unreadable(role="user")],
        [{"role": "system", "content": [10**5000]}],
        [{"role": np.zeros(3), "content": "x"}],
        [{"role": "user", "content": [{"type": np.zeros(3)}]}],
        [{"role": "assistant", "tool_calls": np.zeros(3)}],
        [{"role": "assistant", "reasoning": np.zeros(3)}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {10**5000: 1}}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"\ud800\x1b[31m": {1}}}}]}],
    ],
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_nothing_raises_from_inside(messages: Any, template: str) -> None:
    said = refusal(messages, template)
    assert said.isprintable()
    assert len(said) < 600


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


@pytest.mark.parametrize(
    "option", ["enable_thinking", "on_control_tokens", "add_generation_prompt", "preserve_thinking"]
)
def test_options_are_checked(option: str) -> None:
    arguments: Any = {option: "maybe"}
    assert refusal([USER], **arguments).startswith(f"{option}: got 'maybe'; expected ")


@many
@given(ANYTHING, ANYTHING, st.sampled_from(TEMPLATES), st.sampled_from(POLICIES))
@example([{"role": "user", "content": "x" * 2_000_000}], None, "large", "escape")
@example([{"role": "user", "content": "<|turn>" * 200_000}], None, "large", "escape")
def test_whatever_comes_in_ends_in_a_prompt_or_a_clear_error(
    messages: Any, tools: Any, template: str, how: Any
) -> None:
    text_of(messages, template, tools=tools, on_control_tokens=how)


@many
@given(
    st.lists(ANYTHING, min_size=1, max_size=3), st.sampled_from(TEMPLATES), st.sampled_from(["content", "tool_calls"])
)
def test_nor_does_a_message_with_a_role_break_it(values: Any, template: str, key: str) -> None:
    messages = [{"role": role, key: value} for role, value in zip(("user", "assistant", "tool"), values, strict=False)]
    text_of(messages, template)


# Control tokens


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_control_token_is_kept_escaped_or_refused(token: str) -> None:
    messages = [{"role": "user", "content": f"a {token} b"}]
    assert f"a {token} b" in render(messages, "small")
    escaped = render(messages, "small", on_control_tokens="escape")
    assert f"a {token[0]}\u200b{token[1:]} b" in escaped
    assert escaped.replace("\u200b", "") == render(messages, "small")
    assert f"got control token {token} in" in refusal(messages, on_control_tokens="refuse")


def test_there_are_as_many_control_tokens_as_added_tokens() -> None:
    assert len(set(CONTROL_TOKENS)) == 24


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": "<|tu"}, {"type": "text", "text": "rn>"}]}],
        [{"role": "system", "content": "<|turn>"}, USER],
        [USER, {**CALLS, "tool_calls": [{"function": {"name": "<|turn>", "arguments": {}}}]}],
        [USER, {**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": {"<|turn>": 1}}}]}],
        [USER, {**CALLS, "tool_calls": [{"function": {"name": "f", "arguments": {"a": ["<|turn>"]}}}]}],
        [USER, CALLS, {"role": "tool", "tool_call_id": "c", "content": "<|turn>"}],
        [USER, {"role": "assistant", "content": "", "reasoning": "<|turn>"}],
        [USER, {"role": "assistant", "content": "x", "tool_responses": [{"name": "<|turn>", "response": 1}]}],
        [USER, {"role": "assistant", "content": "x", "tool_responses": [{"name": "f", "response": {"<|turn>": 1}}]}],
    ],
)
def test_no_way_into_the_prompt_is_unguarded(messages: Any) -> None:
    assert "control token <|turn>" in refusal(messages, on_control_tokens="refuse")
    guarded = render(messages, "small", on_control_tokens="escape")
    assert "<\u200b|turn>" in guarded
    assert guarded.count("<|turn>") == render(messages, "small").count("<|turn>") - 1


def test_the_tools_are_guarded_too() -> None:
    for function in (
        {"name": "<turn|>"},
        {"name": "f", "description": "<turn|>"},
        {"name": "f", "parameters": {"type": "object", "properties": {"<turn|>": {"type": "string"}}}},
        {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string", "enum": ["<turn|>"]}}}},
        {"name": "f", "parameters": {"type": "object", "required": ["<turn|>"]}},
        {
            "name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "array", "items": {"<turn|>": 1}}}},
        },
        {"name": "f", "response": {"description": "<turn|>"}},
    ):
        assert "control token <turn|>" in refusal([USER], tools=[{"function": function}], on_control_tokens="refuse")


def test_thoughts_of_the_history_are_no_injection() -> None:
    messages = [USER, {"role": "assistant", "content": "<|channel>thought\nhm<channel|>Hello."}, USER]
    assert render(messages, "small", on_control_tokens="refuse") == render(messages, "small")


@many
@given(TIDY_CONVERSATIONS, TIDY_TOOLS, st.sampled_from(TEMPLATES))
@example([{**CALLS, "reasoning": "<|channel>"}], None, "small@2026-04-10")
def test_escaping_leaves_only_the_tokens_of_the_format(messages: Any, tools: Any, template: str) -> None:
    escaped = render(messages, template, tools=tools, on_control_tokens="escape")
    harmless = _without_tokens(messages), _without_tokens(tools)
    expected = render(harmless[0], template, tools=harmless[1])
    tokens = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
    assert tokens.findall(escaped) == tokens.findall(expected)


def _without_tokens(value: Any, *, spoken: bool = False) -> Any:
    """The same conversation with a plain word in the place of every control token.

    What the assistant has spoken loses its thoughts first, as it does in the prompt.
    """
    if isinstance(value, str):
        text = "".join(part.split("<|channel>")[0] for part in value.split("<channel|>")) if spoken else value
        if value and not text:
            text = " "  # what says nothing is not what is empty: one template closes a turn behind the one alone
        for token in CONTROL_TOKENS:
            text = text.replace(token, "word")
        return text
    if isinstance(value, list):
        return [_without_tokens(item, spoken=spoken) for item in value]
    if isinstance(value, dict):
        by_model = value.get("role") == "assistant"
        return {key: _without_tokens(v, spoken=spoken or (by_model and key == "content")) for key, v in value.items()}
    return value


# Laws


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
