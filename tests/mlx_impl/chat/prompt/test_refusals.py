"""What a prompt cannot express is refused in one line."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_impl.chat.prompt import POLICIES, TEMPLATES, render
from tests.support.conversations import ANYTHING
from tests.support.rendered import CALLS, USER, many, refusal, text_of

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
