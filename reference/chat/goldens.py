"""Makes the prompts again: every conversation with every template and setting, every text with the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from gemma4_contract.prompts import THINKING, Conversation, Prompt, Render, Setting, Settings, Texts
from reference.chat.real import RealChat, TemplateRaises

_T = TypeVar("_T")


def render_all(conversation: Conversation, chat: RealChat, templates: Mapping[str, str]) -> Conversation:
    """The conversation with its prompts for all templates, which are given by name and text."""
    answers: dict[tuple[str | None, str | None], list[Setting]] = {}
    for template, source in templates.items():
        for thinking in THINKING.values():
            for generation in (True, False):
                answer = _answer(conversation, chat, source, thinking, generation)
                answers.setdefault(answer, []).append((template, thinking, generation))
    renders = [
        Render(
            when=_products(settings),
            prompt=None if text is None else Prompt.of(text, chat.ids(text)),
            error=error,
        )
        for (text, error), settings in answers.items()
    ]
    return conversation.model_copy(update={"renders": renders})


def encode_all(texts: Texts, chat: RealChat) -> Texts:
    """The texts with their ids."""
    return texts.model_copy(update={"items": [Prompt.of(item.text, chat.ids(item.text)) for item in texts.items]})


def _answer(
    conversation: Conversation, chat: RealChat, template: str, thinking: bool | None, generation: bool
) -> tuple[str | None, str | None]:
    """A text, or an error."""
    try:
        text = chat.text(
            conversation.messages,
            template,
            tools=conversation.tools,
            enable_thinking=thinking,
            add_generation_prompt=generation,
            preserve_thinking=conversation.preserve_thinking,
        )
    except TemplateRaises as error:
        return None, str(error)
    return text, None


def _products(settings: Sequence[Setting]) -> list[Settings]:
    """The settings as few products: first the templates of each thinking and prompt, then what these share."""
    templates: dict[tuple[bool | None, bool], tuple[str, ...]] = {}
    for template, thinking, generation in settings:
        templates[thinking, generation] = (*templates.get((thinking, generation), ()), template)
    thinkings: dict[tuple[tuple[str, ...], bool], tuple[bool | None, ...]] = {}
    for (thinking, generation), names in templates.items():
        thinkings[names, generation] = (*thinkings.get((names, generation), ()), thinking)
    generations: dict[tuple[tuple[str, ...], tuple[bool | None, ...]], list[bool]] = {}
    for (names, generation), allowed in thinkings.items():
        generations.setdefault((names, allowed), []).append(generation)
    return [
        Settings(templates=list(names), enable_thinking=list(allowed), add_generation_prompt=prompts)
        for (names, allowed), prompts in generations.items()
    ]


def changes(old: Conversation, new: Conversation) -> list[str]:
    """A line for each template whose prompts changed, appeared or disappeared: their number, and the first."""
    before, after = _outcomes(old), _outcomes(new)
    lines = []
    for template in _in_order(setting[0] for setting in [*before, *after]):
        settings = _in_order(setting for setting in [*before, *after] if setting[0] == template)
        differing = [setting for setting in settings if before.get(setting) != after.get(setting)]
        if differing:
            was, now = before.get(differing[0]), after.get(differing[0])
            lines.append(f"{new.id} {template}: {len(differing)} of {len(settings)} prompts, first {_how(was, now)}")
    return lines


def steps(conversation: Conversation, template: str, previous: str) -> list[str]:
    """A line if any prompt of the conversation differs between a template and the one before it."""
    outcomes = _outcomes(conversation)
    settings = [setting for setting in outcomes if setting[0] == template]
    for _, thinking, generation in settings:
        was, now = outcomes.get((previous, thinking, generation)), outcomes[template, thinking, generation]
        if was != now:
            return [f"{conversation.id}: {_how(was, now)}"]
    return []


def _outcomes(conversation: Conversation) -> dict[Setting, str]:
    return {
        setting: render.prompt.text if render.prompt else f"error {render.error}"
        for setting, render in conversation.by_setting.items()
    }


def _how(was: str | None, now: str | None) -> str:
    if was is None or now is None:
        return "new" if was is None else "gone"
    at = next((i for i, pair in enumerate(zip(was, now, strict=False)) if pair[0] != pair[1]), min(len(was), len(now)))
    around = slice(max(0, at - 10), at + 30)
    return f"{was[around]!r} became {now[around]!r}"


def _in_order(values: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(values))
