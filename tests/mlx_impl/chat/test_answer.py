"""Answers: an independent writer's parts come back, whole, streamed or cut, and what is out of place is named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_impl import MlxImplError
from mlx_impl.chat import answer as answer_module
from mlx_impl.chat.answer import Answer, AnswerStream, Piece, parse_answer
from mlx_impl.chat.tool_call import ToolCall
from tests.support.written_answers import PARTS, Q, answer_of, error_of, same, written_parts


@given(parts=PARTS, stop=st.sampled_from(["", "<turn|>", "<eos>", "<|tool_response>"]))
def test_what_is_written_comes_back(parts: list[tuple[str, Any]], stop: str) -> None:
    assert same(parse_answer(written_parts(parts) + stop), answer_of(parts))


@given(parts=PARTS, data=st.data())
def test_cut_anywhere_it_streams_the_same(parts: list[tuple[str, Any]], data: st.DataObject) -> None:
    text = written_parts(parts) + data.draw(st.sampled_from(["", "<turn|>"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8))) if data.draw(st.booleans()) else None
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)] if cuts is not None else list(text)
    stream = AnswerStream()
    new = [item for piece in pieces for item in stream.feed(piece)] + stream.finish()
    wanted = answer_of(parts)
    assert same(stream.answer, wanted)
    assert tuple(item for item in new if isinstance(item, ToolCall)) == wanted.tool_calls
    for part, whole in (("content", wanted.content), ("thinking", wanted.thinking or "")):
        texts = [item.text for item in new if isinstance(item, Piece) and item.part == part]
        assert all(texts)
        assert "".join(texts) == whole


@given(parts=PARTS, data=st.data())
def test_a_cut_answer_holds_what_is_certain(parts: list[tuple[str, Any]], data: st.DataObject) -> None:
    """`feed` without `finish` gives, at every cut, a begin of what the whole gives."""
    text, whole = written_parts(parts), answer_of(parts)
    cut = data.draw(st.integers(0, len(text)))
    stream = AnswerStream()
    stream.feed(text[:cut])
    part = stream.answer
    assert whole.content.startswith(part.content)
    assert (whole.thinking or "").startswith(part.thinking or "")
    assert part.tool_calls == whole.tool_calls[: len(part.tool_calls)]
    parse_answer(text[:cut])  # a cut alone is never malformed


@pytest.mark.parametrize(
    ("text", "thinking", "content", "calls"),
    [
        ("<|channel>", None, "", 0),
        ("Hi<|channel>thou", None, "Hi", 0),
        ("<|channel>thought", None, "", 0),
        ("<|channel>thought\n", "", "", 0),
        ("<|channel>thought\nSo\n", "So", "", 0),
        ("<|channel>thought\nSo<turn|>", "So", "", 0),
        ("A<|tool_call>", None, "A", 0),
        ("A<|tool_call>call:f{a:1}", None, "A", 0),
        ("<|tool_call>call:f{}<tool_call|><|tool_call>call:g{a:<|", None, "", 1),
        (f"<|tool_call>call:f{{a:{Q}<tool_call|>", None, "", 0),
        (f"<|tool_call>call:f{{a:{Q}x<turn|>", None, "", 0),
        ("<|tool_call>call:f{a:1}<turn|>", None, "", 0),
    ],
)
def test_an_unfinished_answer_says_so(text: str, thinking: str | None, content: str, calls: int) -> None:
    answer = parse_answer(text)
    assert (answer.thinking, answer.content, len(answer.tool_calls), answer.complete) == (
        thinking,
        content,
        calls,
        False,
    )


@pytest.mark.parametrize(
    ("text", "thinking", "content"),
    [
        ("", None, ""),
        ("<turn|>", None, ""),
        ("  Hi \n", None, "  Hi \n"),
        ("a <b> | <| <|x> <tool> {", None, "a <b> | <| <|x> <tool> {"),
        ("<|channel", None, "<|channel"),
        ("<|channel>thought\n<channel|>Hi", "", "Hi"),
        ("<|channel>thought<channel|>Hi", "", "Hi"),
        ("<|channel>thought\nSo\n<channel|>Hi<eos>", "So", "Hi"),
        ("<|channel>thought\n\nSo\n\n<channel|>", "\nSo\n", ""),
        ("<|channel>thought\nSo<channel|>", "So", ""),
        ("A<|channel>thought\nx\n<channel|>B<|channel>thought\ny\n<channel|>C", "x\ny", "ABC"),
        ("<|channel>thought\n<|channel><|tool_call>call:f{}\n<channel|>", "<|channel><|tool_call>call:f{}", ""),
    ],
)
def test_thinking_and_content(text: str, thinking: str | None, content: str) -> None:
    assert parse_answer(text) == Answer(thinking=thinking, content=content, tool_calls=(), complete=True)


def test_an_answer_to_an_open_thought() -> None:
    whole = Answer(thinking="So", content="Hi", tool_calls=(), complete=True)
    assert parse_answer("So\n<channel|>Hi", thinking_open=True) == whole
    cut = parse_answer("So", thinking_open=True)
    assert (cut.thinking, cut.complete) == ("So", False)


def test_pieces_come_when_they_are_certain() -> None:
    stream = AnswerStream()
    text = [
        "<|channel>thought\nSo",
        " <",
        "b>\n",
        "\n<chan",
        "nel|>Hi<",
        "tu",
        "x<|tool_call>call:f{a:",
        "1}<tool_call|>",
    ]
    assert [stream.feed(piece) for piece in text] == [
        [Piece(part="thinking", text="So")],
        [Piece(part="thinking", text=" ")],
        [Piece(part="thinking", text="<b>")],
        [Piece(part="thinking", text="\n")],
        [Piece(part="content", text="Hi")],
        [],
        [Piece(part="content", text="<tux")],
        [ToolCall(name="f", arguments={"a": 1})],
    ]
    assert stream.finish() == []


@pytest.mark.parametrize(
    ("text", "at", "got", "cure"),
    [
        ("So\n<channel|>Hi", 3, "<channel|>, which closes nothing", "thinking_open=True"),
        ("Hi<tool_call|>", 2, "<tool_call|>, which closes nothing", "ask again"),
        ("Hi<|channel>final\nx<channel|>", 12, "the channel 'final'", "ask again"),
        ("<|channel>final", 10, "the channel 'final'", "ask again"),
        ("<|channel>\nx", 10, "the channel ''", "ask again"),
        ("Hi<turn|>\n", 9, "'\\n' after <turn|>", "stop_ids()"),
        ("<|tool_call>call:f{<turn|>x", 26, "'x' after <turn|>", "stop_ids()"),
        ("<|channel>thought\nx<eos>Hi", 24, "'Hi' after <eos>", "stop_ids()"),
        (f"<|tool_call>call:f{{}}<tool_call|><|tool_response>{'x' * 90}", 48, f"'{'x' * 40}' after", "stop_ids()"),
    ],
)
def test_what_is_out_of_place_is_named(text: str, at: int, got: str, cure: str) -> None:
    message = error_of(text)
    assert message.startswith(f"answer, character {at}: got {got}")
    assert cure in message
    with pytest.raises(MlxImplError) as caught:
        stream_characters(text)
    assert str(caught.value).startswith(f"answer, character {at}: got ")


def stream_characters(text: str) -> Answer:
    stream = AnswerStream()
    for character in text:
        stream.feed(character)
    stream.finish()
    return stream.answer


@pytest.mark.parametrize("text", [None, b"Hi", 3, ["Hi"]])
def test_what_is_no_text_is_refused(text: object) -> None:
    assert error_of(text).startswith(f"answer: got {text!r}; expected a string")


def test_nothing_follows_finish() -> None:
    stream = AnswerStream()
    stream.feed("Hi")
    assert (stream.finish(), stream.feed("")) == ([], [])
    with pytest.raises(MlxImplError, match=r"character 2: got 'x' after finish\(\); .* use another AnswerStream"):
        stream.feed("x")


def test_a_long_answer_is_read_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed by the character, no more than the longest control token is ever looked at again."""
    searched: list[int] = []

    class Counting:
        def __init__(self, pattern: Any) -> None:
            self._pattern = pattern

        def search(self, text: str, start: int) -> Any:
            searched.append(len(text) - start)
            return self._pattern.search(text, start)

    counting = {state: Counting(pattern) for state, pattern in answer_module._END.items()}
    monkeypatch.setattr(answer_module, "_END", counting)
    text = f"<|channel>thought\n{'x< ' * 900}\n<channel|><|tool_call>call:f{{a:{Q}{'y<|' * 900}{Q}}}<tool_call|>"
    assert stream_characters(text).tool_calls[0].arguments == {"a": "y<|" * 900}
    assert max(searched) <= len("<|tool_response>")
    assert len(searched) < len(text) + 10
