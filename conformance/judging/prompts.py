"""Judges prompts by their bytes and by their ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from conformance.adapters.base import Adapter, PortFault, PromptAdapter, PromptRequest, Refused, Skip
from conformance.fetch.cache import NO_TOKENIZER
from conformance.judging.prompt_hints import hint
from gemma4_contract.models import Level
from gemma4_contract.prompts import THINKING, Conversation, Prompt, Prompts, Render, Texts, Thinking

PromptOutcome = Literal["pass", "fail", "skip", "error"]
KIND, TOPIC = "prompt", "prompts"
LEVEL: Level = "L4"
"""Kind, topic and level of every question on prompts."""
_AROUND = 24
_Answer = TypeVar("_Answer", str, list[int])


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptVerdict:
    """The verdict on one question: all prompts of a conversation with one setting of thinking, or some raw texts."""

    question: str
    outcome: PromptOutcome
    note: str = ""
    compared: int = 0


class PromptJudge:
    """Judges one implementation on conversations and texts."""

    def __init__(self, prompts: Prompts, adapter: Adapter, tokenizer_json: Path | None) -> None:
        """`tokenizer_json` is the published tokenizer; None if it was not fetched, and then ids are not compared."""
        self._prompts = prompts
        self._adapter = adapter
        self._tokenizer = tokenizer_json
        self._asked: dict[str, tuple[str, Thinking | None]] = {
            f"{prompt_id}/thinking-{thinking}": (prompt_id, thinking)
            for prompt_id in prompts.conversation_ids
            for thinking in THINKING
        }
        self._asked |= {prompt_id: (prompt_id, None) for prompt_id in prompts.text_ids}

    def questions(self) -> Iterator[str]:
        """`prompt/chat/<name>/thinking-<unset|off|on>` and `prompt/text/<name>`."""
        return iter(self._asked)

    def document_of(self, question: str) -> str:
        """The id of the conversation or texts of a question."""
        return self._asked[question][0]

    def judge(self, question: str) -> PromptVerdict:
        """The verdict on one question; FixtureError when its file is damaged."""
        if not isinstance(self._adapter, PromptAdapter):
            return PromptVerdict(question=question, outcome="skip", note="builds no prompts")
        prompt_id, thinking = self._asked[question]
        if thinking is None:
            faults = self._text_faults(self._adapter, self._prompts.texts(prompt_id))
        else:
            faults = self._conversation_faults(self._adapter, self._prompts.conversation(prompt_id), thinking)
        compared = 0
        try:
            for fault in faults:
                if fault:
                    return PromptVerdict(question=question, outcome="fail", note=fault, compared=compared)
                compared += 1
        except Skip as skipped:
            return PromptVerdict(question=question, outcome="skip", note=one_line(skipped))
        except PortFault as error:  # of another process: its message is already one line
            return PromptVerdict(question=question, outcome="error", note=one_line(error), compared=compared)
        except Exception as error:  # foreign code: whatever it raises is its answer
            said = f"{type(error).__name__}: {one_line(error)}"
            return PromptVerdict(question=question, outcome="error", note=said, compared=compared)
        return PromptVerdict(question=question, outcome="pass", compared=compared)

    def _conversation_faults(
        self, adapter: PromptAdapter, conversation: Conversation, thinking: Thinking
    ) -> Iterator[str]:
        """What is wrong with each prompt of a conversation, "" for a right one.

        Templates that the implementation lacks are passed over; Skip if it lacks all of them.
        """
        skipped, answered = "", False
        for template, enable_thinking, generation in conversation.settings():
            if enable_thinking is not THINKING[thinking]:
                continue
            request = PromptRequest(
                messages=conversation.messages,
                tools=conversation.tools,
                template=template,
                enable_thinking=enable_thinking,
                add_generation_prompt=generation,
                preserve_thinking=conversation.preserve_thinking,
            )
            expected = conversation.render(template, enable_thinking, generation)
            try:
                text: object = adapter.prompt(request)
            except Skip as error:
                skipped = str(error)
                continue
            except Refused as error:
                fault = "" if expected.prompt is None else f"refused ({one_line(error)}), expected a prompt"
            else:
                fault = self._fault(adapter, text, expected)
                if expected.prompt is not None and isinstance(text, str) and text != expected.prompt.text:
                    fault += hint(conversation, (template, enable_thinking, generation), text)
            answered = True
            asked = f"{template}, generation prompt {'asked for' if generation else 'not asked for'}"
            yield f"{asked}: {fault}" if fault else ""
        if not answered:
            raise Skip(skipped)

    def _fault(self, adapter: PromptAdapter, text: object, expected: Render) -> str:
        if not isinstance(text, str):
            return f"got {type(text).__name__}, expected str"
        if expected.prompt is None:
            return f"got a prompt, expected a refusal: the template raises {expected.error}"
        if text != expected.prompt.text:
            return _first_difference(text, expected.prompt.text)
        if self._tokenizer is None:
            return ""
        try:
            return self._ids_fault(adapter, expected.prompt)
        except Skip:  # a port may write prompts without a tokenizer
            return ""

    def _text_faults(self, adapter: PromptAdapter, texts: Texts) -> Iterator[str]:
        if self._tokenizer is None:
            raise Skip(NO_TOKENIZER)
        for item in texts.items:
            fault = self._ids_fault(adapter, item)
            yield f"of the text {_shown(item.text)}: {fault}" if fault else ""

    def _ids_fault(self, adapter: PromptAdapter, prompt: Prompt) -> str:
        assert self._tokenizer is not None
        ids: object = adapter.encode(prompt.text, self._tokenizer)
        if not isinstance(ids, list):
            return f"got {type(ids).__name__} as ids, expected a list of int"
        kinds = sorted({type(value).__name__ for value in ids} - {"int"})
        if kinds:
            return f"got {', '.join(kinds)} among the ids, expected int"
        if ids == prompt.ids:
            return ""
        at = _position(ids, prompt.ids)
        twice = "; a second <bos> was added" if ids[:2] == [2, 2] else ""
        return (
            f"ids differ from token {at} on: got {ids[at : at + 6]}, expected {prompt.ids[at : at + 6]}"
            f" ({len(ids)} ids, expected {len(prompt.ids)}){twice}"
        )


def one_line(error: BaseException) -> str:
    """The message of a foreign error, on one line that any terminal and file can hold."""
    text = " ".join(str(error).split())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _first_difference(got: str, expected: str) -> str:
    """The first byte at which two texts differ, with its surroundings in both."""
    at = _position(got, expected)
    offset = len(expected[:at].encode("utf-8", "surrogatepass"))
    start = max(0, at - _AROUND)
    return (
        f"differs from byte {offset} on\n"
        f"  got      {_shown(got[start : at + _AROUND])}\n"
        f"  expected {_shown(expected[start : at + _AROUND])}"
    )


def _position(got: _Answer, expected: _Answer) -> int:
    pairs = zip(got, expected, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(expected)))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 3 * _AROUND else text[: 3 * _AROUND] + "...")
