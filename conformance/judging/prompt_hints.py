"""Hints on a wrong prompt: another template, another setting, or a known mistake of ports."""

from __future__ import annotations

from collections.abc import Callable

from gemma4_contract.prompts import Conversation, Setting

_ESCAPES = ("&lt;", "&gt;", "&#34;", "&quot;")
_MISTAKES: tuple[tuple[str, Callable[[str, str], bool]], ...] = (
    ("it lacks <bos>: only the template writes one", lambda got, expected: f"<bos>{got}" == expected),
    ("<bos> is written twice", lambda got, expected: got == f"<bos>{expected}"),
    (
        "bos_token was printed as none: the tokenizer's configuration was not read",
        lambda got, expected: got[:4].lower() == "none" and got[4:] == expected.removeprefix("<bos>"),
    ),
    (
        "newlines follow <bos>: the engine keeps the white space that `-%}` takes away",
        lambda got, expected: got.startswith("<bos>\n") and got[5:].lstrip("\n") == expected.removeprefix("<bos>"),
    ),
    ("HTML was escaped", lambda got, expected: any(mark in got and mark not in expected for mark in _ESCAPES)),
    ("white space at an end is missing or too much", lambda got, expected: got.strip() == expected.strip()),
)


def hint(conversation: Conversation, setting: Setting, got: str) -> str:
    """A line on what a wrong prompt looks like; "" if nothing known."""
    expected = conversation.render(*setting).prompt
    assert expected is not None, "a wrong prompt is one that differs from another"
    for mistake, made in _MISTAKES:
        if made(got, expected.text):
            return f"\n  looks like: {mistake}"
    newest_first = (other for other in reversed(conversation.settings()) if other != setting)
    for other in sorted(newest_first, key=lambda other: _distance(other, setting)):
        prompt = conversation.render(*other).prompt
        if prompt is not None and prompt.text == got:
            return f"\n  looks like: {_named(other, setting)}"
    return ""


def _distance(other: Setting, setting: Setting) -> tuple[int, bool, bool]:
    """The number of differences of another setting, and whether its template has another size class or date."""
    differing = sum(a != b for a, b in zip(other, setting, strict=True))
    (size, date), (asked_size, asked_date) = other[0].split("@"), setting[0].split("@")
    return differing, size != asked_size, date != asked_date


def _named(other: Setting, setting: Setting) -> str:
    """The differences of another setting from the one that was asked for, in words."""
    differs = []
    if other[0] != setting[0]:
        size = "" if other[0].split("@")[0] == setting[0].split("@")[0] else ", the other size class"
        differs.append(f"the template {other[0]}{size}")
    if other[1] != setting[1]:
        differs.append(f"thinking {'on' if other[1] else 'off'}, where {'on' if setting[1] else 'off'} was asked for")
    if other[2] != setting[2]:
        differs.append(f"{'a' if other[2] else 'no'} generation prompt")
    return "the prompt of " + " and ".join(differs)
