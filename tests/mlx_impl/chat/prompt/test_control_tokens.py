"""Control tokens in a conversation are kept, escaped or refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_impl.chat.prompt import CONTROL_TOKENS, TEMPLATES, render
from tests.support.conversations import TIDY_CONVERSATIONS, TIDY_TOOLS
from tests.support.rendered import CALLS, USER, many, refusal


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
    """The same conversation with a plain word instead of every control token.

    What the assistant has spoken loses its thoughts first, as it does in the prompt.
    """
    if isinstance(value, str):
        text = "".join(part.split("<|channel>")[0] for part in value.split("<channel|>")) if spoken else value
        if value and not text:
            text = " "  # a blank text is not an empty one: one template closes a turn only after a blank one
        for token in CONTROL_TOKENS:
            text = text.replace(token, "word")
        return text
    if isinstance(value, list):
        return [_without_tokens(item, spoken=spoken) for item in value]
    if isinstance(value, dict):
        by_model = value.get("role") == "assistant"
        return {key: _without_tokens(v, spoken=spoken or (by_model and key == "content")) for key, v in value.items()}
    return value
