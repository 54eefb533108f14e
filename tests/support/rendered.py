"""Messages, and prompts or refusals of them in one line, for tests of the builder of prompts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

from mlx_impl import MlxImplError
from mlx_impl.chat.prompt import render

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
