"""Tool calls: what is written comes back in value and type, and nothing broken passes for whole."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_impl import MlxImplError
from mlx_impl.chat.answer import Answer, parse_answer
from mlx_impl.chat.prompt import render
from mlx_impl.chat.tool_call import DEEPEST, ToolCall
from tests.support.written_answers import KEYS, PROSE, VALUES, Q, call_of, error_of, same, written


@given(arguments=st.dictionaries(KEYS, VALUES))
@example(arguments={"a": 1e-5, "b": -3, "c": 1e16, "d": -0.0, "e": 10**40, "f": [], "g": {}, "h": [[{"i": ""}]]})
@example(arguments={"a": 'x{},:[]"\n\\', "b": "<tool_call|>", "c": "<|tool_call>call:f{}", "d": "true", "e": " 1 "})
def test_arguments_come_back(arguments: dict[str, Any]) -> None:
    assert same(call_of(f"call:f{written(arguments)}"), ToolCall(name="f", arguments=arguments))


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("call:f{ a : 1 , b:[ 1 , 2 ] , c:{ } \n}", {"a": 1, "b": [1, 2], "c": {}}),
        (" call:f{a:\n1}\n", {"a": 1}),
        ("call:f{a-b.c d:1,1:2,Ünï:3}", {"a-b.c d": 1, "1": 2, "Ünï": 3}),
        (f"call:f{{{Q}a:{{ {Q} :1}}", {"a:{ ": 1}),
        ("call:f{a:1E5,b:-0,c:0.50,d:1e+2}", {"a": 1e5, "b": 0, "c": 0.5, "d": 100.0}),
        (f"call:f{{a:{Q}null{Q},b:{Q}{Q}}}", {"a": "null", "b": ""}),
    ],
)
def test_other_spellings_that_leave_no_doubt(body: str, arguments: dict[str, Any]) -> None:
    assert same(call_of(body).arguments, arguments)


BROKEN = [
    ("", 0, "call:NAME{...}"),
    ("f{}", 0, "call:NAME{...}"),
    ("call:{}", 5, "the name of a function"),
    ("call:f", 6, "{ after the name"),
    ("call:f {}", 6, "{ after the name"),
    ("call:f{a:1", 10, ", or }"),
    ("call:f{a:{b:1}", 14, ", or }"),
    ("call:f{a:[1}", 11, ", or ]"),
    ("call:f{a:[1 2]}", 12, ", or ]"),
    ("call:f{a:1]", 10, ", or }"),
    ("call:f{a:1}}", 11, "the end of the call"),
    ("call:f{a:1}call:g{}", 11, "the end of the call"),
    ("call:f{a}", 8, ": after a key"),
    ("call:f{:1}", 7, "a key"),
    ("call:f{a:1,}", 11, "a key"),
    ('call:f{"a":1}', 7, "a key"),
    ("call:f{,}", 7, "a key"),
    ("call:f{a:}", 9, "a value"),
    ("call:f{a:,b:1}", 9, "a value"),
    ("call:f{a:[1,]}", 12, "a value"),
    ("call:f{a:1,b:2,a:3}", 15, "the key 'a' once"),
    (f"call:f{{a:{Q}x{Q}{Q}y{Q}}}", 20, ", or }"),
    ("call:f{a:<|tool_call>call:g{}", 9, "a value"),
    *(
        (f"call:f{{a:{word}}}", 9, "a number, true, false, null or a string between")
        for word in ("Paris", '"x"', "'x'")
    ),
    *((f"call:f{{a:{word}}}", 9, "a number, ") for word in ("None", "True", "NaN", "Infinity", "-Infinity", "1e999")),
    *(
        (f"call:f{{a:{word}}}", 9, "a number, ")
        for word in ("01", "+1", "1.", ".5", "-", "1e", "0x1", "1_0", "٣", "--1")
    ),
    ("call:f{a:" + "9" * 5000 + "}", 9, "a number, "),
]


@pytest.mark.parametrize(("body", "at", "expected"), BROKEN, ids=[body[:24] or "empty" for body, _, _ in BROKEN])
def test_a_malformed_call_is_named(body: str, at: int, expected: str) -> None:
    begin = "Hi<|tool_call>call:ok{}<tool_call|><|tool_call>"
    message = error_of(f"{begin}{body}<tool_call|>")
    assert message.startswith(f"tool call, character {len(begin) + at}: got ")
    assert f"; expected {expected}" in message
    got = "the end of the call" if at == len(body) else repr(body[at : at + 40])
    assert f": got {got}; " in message


@pytest.mark.parametrize(("opening", "inmost", "closing"), [("[", "", "]"), ("{a:", "1", "}")])
def test_values_nest_to_a_bound(opening: str, inmost: str, closing: str) -> None:
    def body(levels: int) -> str:
        return "call:f{a:" + opening * levels + inmost + closing * levels + "}"

    wanted: Any = 1 if inmost else []
    for _ in range(DEEPEST if inmost == "" else DEEPEST + 1):
        wanted = {"a": wanted} if inmost else [wanted]
    assert call_of(body(DEEPEST + 1)).arguments == {"a": wanted}
    for levels in (DEEPEST + 2, 100_000):
        assert f"expected values that nest at most {DEEPEST} deep" in error_of(
            f"<|tool_call>{body(levels)}<tool_call|>"
        )


def model_turn(arguments: dict[str, Any], reasoning: str | None) -> str:
    """The model's turn of a conversation with one call, as the prompt builder writes it."""
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    answer = {"role": "assistant", "reasoning": reasoning, "tool_calls": [call]}
    prompt = render([{"role": "user", "content": "Hi"}, answer], "small@2026-07-09", add_generation_prompt=False)
    return prompt.split("<|turn>model\n", 1)[1].removesuffix("<|tool_response>")


def test_what_prompts_write_is_read_at_the_same_depth() -> None:
    """The deepest arguments that the prompt builder writes are read, and one level more is refused by both."""
    value: list[Any] = []
    for _ in range(DEEPEST):
        value = [value]
    assert call_of(model_turn({"a": value}, None).removeprefix("<|tool_call>").removesuffix("<tool_call|>"))
    with pytest.raises(MlxImplError, match="nested deeper"):
        model_turn({"a": [value]}, None)
    error_of(f"<|tool_call>call:f{written({'a': [value]})}<tool_call|>")


@given(arguments=st.dictionaries(KEYS, VALUES, max_size=4), reasoning=st.none() | PROSE.filter(bool))
def test_what_prompts_write_is_read(arguments: dict[str, Any], reasoning: str | None) -> None:
    call = ToolCall(name="f", arguments=arguments)
    wanted = Answer(thinking=reasoning, content="", tool_calls=(call,), complete=True)
    assert parse_answer(model_turn(arguments, reasoning)) == wanted


@given(arguments=st.dictionaries(KEYS, VALUES, max_size=4))
def test_mlx_lm_reads_the_same(arguments: dict[str, Any]) -> None:
    parser = pytest.importorskip("mlx_lm.tool_parsers.gemma4", reason="mlx-lm is not installed")
    body = f"call:get-it{written(arguments)}"
    call = call_of(body)
    assert parser.parse_tool_call(body) == {"name": call.name, "arguments": call.arguments}


@pytest.mark.parametrize("body", ["call:f{a:1,a:2}", "call:f{a:1}junk", "junk call:f{a:1}", "call:f{a:1e999}"])
def test_mlx_lm_passes_what_is_refused_here(body: str) -> None:
    """Where it reads a broken call as another, whole one, so that a change of either is noticed."""
    parser = pytest.importorskip("mlx_lm.tool_parsers.gemma4", reason="mlx-lm is not installed")
    assert list(parser.parse_tool_call(body)["arguments"]) == ["a"]
    error_of(f"<|tool_call>{body}<tool_call|>")


def test_a_megabyte_in_a_string() -> None:
    long = 'x{<,"\n' * 170_000
    assert call_of(f"call:f{written({'a': long})}").arguments == {"a": long}
