"""An independent writer of answers in Gemma 4's format, random answers for it, and what a test asks of them."""

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from mlx_impl import MlxImplError
from mlx_impl.chat.answer import Answer, parse_answer
from mlx_impl.chat.tool_call import ToolCall

Q = '<|"|>'
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
CONTROL = ["<tool_call|>", "<|tool_call>", "<channel|>", "<turn|>", "<eos>"]
SNIPPETS = [*CONTROL, *'{}[,:"<|\n']
STRINGS = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=4), max_size=5).map("".join)
STRINGS = STRINGS.filter(lambda text: Q not in f"{text}{Q}"[:-1])  # nor may its end and the quote make another
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | STRINGS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))
CALLS = st.builds(
    ToolCall, name=st.from_regex(r"[\w./-]{1,8}", fullmatch=True), arguments=st.dictionaries(KEYS, VALUES)
)
# Content and thoughts hold no control token, nor what would make one with the next part.
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="<")
PROSE = st.text(LETTERS, max_size=8) | st.sampled_from(["a < b", "\n", "{x: 1}", "<i> "])
PARTS = st.lists(
    st.tuples(st.just("content"), PROSE) | st.tuples(st.just("thinking"), PROSE) | st.tuples(st.just("call"), CALLS),
    max_size=6,
)


def written(value: Any) -> str:
    """A value in the format's spelling, by what JSON gives for numbers and words."""
    if isinstance(value, str):
        return Q + value + Q
    if isinstance(value, dict):
        return "{" + ",".join([f"{key}:{written(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def written_parts(parts: list[tuple[str, Any]]) -> str:
    forms = {
        "content": lambda text: text,
        "thinking": lambda text: f"<|channel>thought\n{text}\n<channel|>",
        "call": lambda call: f"<|tool_call>call:{call.name}{written(call.arguments)}<tool_call|>",
    }
    return "".join([forms[kind](value) for kind, value in parts])


def answer_of(parts: list[tuple[str, Any]]) -> Answer:
    """What `parse_answer` must give for the written parts."""
    thoughts = [value for kind, value in parts if kind == "thinking"]
    return Answer(
        thinking="\n".join(thoughts) if thoughts else None,
        content="".join([value for kind, value in parts if kind == "content"]),
        tool_calls=tuple([value for kind, value in parts if kind == "call"]),
        complete=True,
    )


def call_of(body: str) -> ToolCall:
    """The call of an answer that holds nothing else."""
    answer = parse_answer(f"<|tool_call>{body}<tool_call|>")
    assert (answer.thinking, answer.content, answer.complete) == (None, "", True)
    [call] = answer.tool_calls
    return call


def same(got: object, wanted: object) -> bool:
    """Equal in value and in type, so that 1, 1.0 and True differ, and -0.0 and 0.0."""
    return got == wanted and repr(got) == repr(wanted)


def error_of(text: Any) -> str:
    """The one line that `parse_answer` raises."""
    with pytest.raises(MlxImplError) as caught:
        parse_answer(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message
