"""The judge of prompts, on implementations that make one mistake each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conformance.adapters.base import PromptRequest, Refused, Skip
from conformance.judging.prompt_hints import hint
from conformance.judging.prompts import PromptJudge, PromptVerdict
from mlx_impl import MlxImplError
from mlx_impl.chat import prompt
from tests.support.installed import FIXTURES

PROMPTS = FIXTURES.prompts
PLAIN = "prompt/chat/user-plain/thinking-unset"


def right(request: PromptRequest, **changed: Any) -> str:
    """What a right implementation answers, or one that was asked for something else."""
    asked = {
        "template": request.template,
        "tools": request.tools,
        "enable_thinking": request.enable_thinking,
        "add_generation_prompt": request.add_generation_prompt,
        "preserve_thinking": request.preserve_thinking,
    } | changed
    try:
        return prompt.render(request.messages, **asked)
    except MlxImplError as error:
        raise Refused(str(error)) from None


class Port:
    """A port whose prompts are the right ones, changed; its tokenizer knows the goldens by heart."""

    def __init__(self, change: Callable[[PromptRequest], Any] = right, ids: Callable[[list[int]], Any] = list) -> None:
        self._change = change
        self._ids = ids
        goldens = (PROMPTS.texts(i).items for i in PROMPTS.ids if i.startswith("prompt/text/"))
        self._known = {item.text: item.ids for items in goldens for item in items}
        chats = (PROMPTS.conversation(i).renders for i in PROMPTS.ids if i.startswith("prompt/chat/"))
        self._known |= {r.prompt.text: r.prompt.ids for renders in chats for r in renders if r.prompt}

    def hello(self) -> Any: ...

    def run(self, request: Any) -> Any: ...

    def prompt(self, request: PromptRequest) -> Any:
        return self._change(request)

    def encode(self, text: str, _tokenizer_json: Path) -> Any:
        return self._ids(self._known[text])


def judged(port: Any, question: str = PLAIN, tokenizer: Path | None = Path("tokenizer.json")) -> PromptVerdict:
    return PromptJudge(PROMPTS, port, tokenizer).judge(question)


@pytest.fixture(scope="module")
def honest() -> Port:
    return Port()


def test_a_right_port_passes_everything(honest: Port) -> None:
    judge = PromptJudge(PROMPTS, honest, Path("tokenizer.json"))
    verdicts = [judge.judge(question) for question in judge.questions()]
    assert {verdict.outcome for verdict in verdicts} == {"pass"}
    assert sum(verdict.compared for verdict in verdicts if "/chat/" in verdict.question) == 101 * 10 * 6
    assert sum(verdict.compared for verdict in verdicts if "/text/" in verdict.question) == 299


def test_every_conversation_is_asked_three_times_and_every_text_once(honest: Port) -> None:
    questions = list(PromptJudge(PROMPTS, honest, None).questions())
    assert questions[:3] == [f"{PROMPTS.ids[0]}/thinking-{thinking}" for thinking in ("unset", "off", "on")]
    assert len(questions) == len(set(questions)) == 3 * 101 + 13


MISTAKES: dict[str, tuple[Callable[[PromptRequest], Any], str]] = {
    "no bos": (lambda r: right(r).removeprefix("<bos>"), "it lacks <bos>"),
    "two bos": (lambda r: "<bos>" + right(r), "<bos> is written twice"),
    "bos none": (lambda r: right(r).replace("<bos>", "None"), "bos_token was printed as none"),
    "white space control": (lambda r: right(r).replace("<bos>", "<bos>\n\n"), "newlines follow <bos>"),
    "trimmed at the end": (lambda r: right(r).rstrip(), "white space at an end"),
    "thinking on": (lambda r: right(r, enable_thinking=True), "thinking on, where off was asked for"),
    "one renderer": (
        lambda r: right(r, template=r.template.replace("large", "small").replace("06-03", "05-22")),
        "the prompt of the template small@",
    ),
    "no generation prompt": (lambda r: right(r, add_generation_prompt=False), "the prompt of no generation prompt"),
    "generation prompt always": (lambda r: right(r, add_generation_prompt=True), "the prompt of a generation prompt"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_fails_and_is_named(mistake: str) -> None:
    change, said = MISTAKES[mistake]
    verdict = judged(Port(change))
    assert verdict.outcome == "fail"
    assert "\n  looks like: " in verdict.note
    assert said in verdict.note


def test_an_old_template_is_named() -> None:
    port = Port(lambda r: right(r, template=f"{r.template.split('@')[0]}@2026-04-02"))
    verdict = judged(port, "prompt/chat/parts-image/thinking-unset")
    assert verdict.note.startswith("large@2026-04-10, generation prompt not asked for: differs from byte 17 on\n")
    assert verdict.note.endswith("looks like: the prompt of the template large@2026-04-02")


def test_escaped_html_is_named() -> None:
    verdict = judged(Port(lambda r: right(r).replace("<div", "&lt;div")), "prompt/chat/user-markup/thinking-off")
    assert verdict.note.endswith("looks like: HTML was escaped")


def test_entities_that_were_asked_for_are_not_taken_for_escaped_html() -> None:
    prompt = SimpleNamespace(text="<bos>&lt;br&gt; is a tag")
    conversation: Any = SimpleNamespace(render=lambda *_: SimpleNamespace(prompt=prompt), settings=list)
    assert hint(conversation, ("small@2026-07-09", None, True), "<bos>&lt;br&gt; is no tag") == ""


def test_an_unknown_mistake_is_given_no_name() -> None:
    verdict = judged(Port(lambda r: right(r).replace("France", "Spain")))
    assert "looks like" not in verdict.note


def test_the_first_byte_that_differs_is_told() -> None:
    verdict = judged(Port(lambda r: right(r).replace("解释", "解释 ")), "prompt/chat/user-cjk/thinking-unset")
    assert verdict.outcome == "fail"
    text = PROMPTS.conversation("prompt/chat/user-cjk").renders[0].prompt
    assert text is not None
    offset = text.text.encode().index("解释".encode()) + len("解释".encode())
    assert f"differs from byte {offset} on\n  got      " in verdict.note
    assert "expected '<bos><|turn>user\\n" in verdict.note


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (lambda ids: [2, *ids], "ids differ from token 1 on: got [2, 105,"),
        (lambda ids: [2, *ids], "a second <bos> was added"),
        (lambda ids: ids[1:], "ids differ from token 0 on"),
        (lambda ids: [*ids, 1], "(14 ids, expected 13)"),
        (lambda ids: tuple(ids), "got tuple as ids, expected a list of int"),
        (lambda ids: np.array(ids), "got ndarray as ids, expected a list of int"),
        (lambda ids: [float(number) for number in ids], "got float among the ids, expected int"),
        (lambda ids: [None, *ids], "got NoneType among the ids, expected int"),
        (lambda _: None, "got NoneType as ids, expected a list of int"),
    ],
)
def test_wrong_ids_fail(ids: Callable[[list[int]], Any], said: str) -> None:
    verdict = judged(Port(ids=ids))
    assert verdict.outcome == "fail"
    assert said in verdict.note
    texts = judged(Port(ids=ids), "prompt/text/sentences")
    assert texts.outcome == "fail"
    assert "of the text 'Hello, what is your name?'" in texts.note


def test_without_the_tokenizer_the_text_is_judged_and_ids_are_not() -> None:
    wrong_ids = Port(ids=lambda ids: [*ids, 1])
    assert judged(wrong_ids, tokenizer=None).outcome == "pass"
    assert judged(Port(lambda _: "x"), tokenizer=None).outcome == "fail"
    skipped = judged(wrong_ids, "prompt/text/digits", tokenizer=None)
    assert (skipped.outcome, skipped.note[:38]) == ("skip", "the published tokenizer was not fetche")


def _has_no(template: str) -> Callable[[PromptRequest], str]:
    def change(request: PromptRequest) -> str:
        if request.template.startswith(template):
            raise Skip(f"no {template}")
        return right(request)

    return change


def test_a_template_that_a_port_lacks_is_passed_over() -> None:
    verdict = judged(Port(_has_no("large")))
    assert (verdict.outcome, verdict.compared) == ("pass", 10)
    assert judged(Port(_has_no("")), PLAIN).outcome == "skip"


def _raises(error: Exception) -> Callable[[PromptRequest], str]:
    def change(_: PromptRequest) -> str:
        raise error

    return change


def test_a_refusal_is_right_where_the_template_raises_and_wrong_elsewhere() -> None:
    strings = "prompt/chat/tool-string-arguments/thinking-unset"
    refuses = judged(Port(_raises(Refused("no"))), strings)
    assert refuses.outcome == "fail"
    assert "refused (no), expected a prompt" in refuses.note
    never = judged(Port(lambda r: right(r, template=r.template.replace("2026-07-09", "2026-04-28"))), strings)
    assert "got a prompt, expected a refusal: the template raises TemplateError: chat_template:" in never.note


def _no_tokenizer(_: list[int]) -> list[int]:
    raise Skip("no tokenizer")


def test_a_port_without_a_tokenizer_is_judged_by_its_texts() -> None:
    assert judged(Port(ids=_no_tokenizer)).outcome == "pass"
    assert judged(Port(lambda _: "wrong", _no_tokenizer)).outcome == "fail"
    last = Port(lambda r: right(r) + ("" if r.template != "small@2026-07-09" else "!"), _no_tokenizer)
    assert judged(last).outcome == "fail"
    assert judged(Port(ids=_no_tokenizer), "prompt/text/digits").outcome == "skip"


def test_nothing_is_no_refusal() -> None:
    strings = "prompt/chat/tool-string-arguments/thinking-unset"
    assert "got NoneType, expected str" in judged(Port(lambda _: None)).note
    quiet = Port(lambda r: right(r) if r.template.split("@")[1] < "2026-07-09" else None)
    assert "got NoneType, expected str" in judged(quiet, strings).note


def test_what_a_port_says_is_one_printable_line() -> None:
    said = "a\nb\x1b[31m\ud800 é"
    for change in (_raises(ValueError(said)), _raises(Refused(said)), _raises(Skip(said))):
        note = judged(Port(change)).note
        assert r"a b\x1b[31m\ud800 é" in note
        assert note.isprintable()


def test_of_two_templates_that_give_the_same_the_one_of_the_same_date_is_named() -> None:
    port = Port(lambda r: right(r, template=r.template.replace("large", "small").replace("06-03", "05-22")))
    note = judged(port).note
    assert note.startswith("large@2026-04-02, generation prompt asked for: ")
    assert "the template small@2026-04-02, the other size class" in note


def test_a_crash_is_an_error_in_one_line_and_what_is_no_text_fails() -> None:
    crashed = judged(Port(_raises(ValueError("two\nlines"))))
    assert (crashed.outcome, crashed.note) == ("error", "ValueError: two lines")
    assert "got bytes, expected str" in judged(Port(lambda r: right(r).encode())).note


def test_a_port_that_writes_no_prompts_is_skipped() -> None:
    class Mute:
        def hello(self) -> Any: ...

        def run(self, request: Any) -> Any: ...

    assert judged(Mute()).outcome == "skip"
