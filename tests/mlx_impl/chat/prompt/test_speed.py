"""How long a prompt takes: the builder in milliseconds, and against Jinja in the same run."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from mlx_impl.chat.prompt import render

TURNS = 100
CONVERSATION = [
    message
    for number in range(TURNS)
    for message in (
        {"role": "user", "content": f" Question {number}: what is the capital of the country of number {number}? "},
        {"role": "assistant", "content": f"The answer to question {number} is the name of a city, which is short."},
    )
]
LIMIT_MS = 2.0
FASTER = 20.0


def milliseconds(build: object) -> float:
    assert callable(build)
    start = time.perf_counter()
    build()
    return (time.perf_counter() - start) * 1000


def test_a_hundred_turns_take_less_than_two_milliseconds() -> None:
    times = [milliseconds(lambda: render(CONVERSATION, "large")) for _ in range(50)]
    assert min(times) < LIMIT_MS, f"fastest of 50: {min(times):.2f} ms"


def test_jinja_takes_twenty_times_as_long(tokenizer_file: Path, real_templates: dict[str, str]) -> None:
    pytest.importorskip("transformers")
    from reference.chat.real import RealChat

    chat, template = RealChat(tokenizer_file), real_templates["large@2026-07-09"]
    assert chat.text(CONVERSATION, template) == render(CONVERSATION, "large")
    pairs = [
        (milliseconds(lambda: chat.text(CONVERSATION, template)), milliseconds(lambda: render(CONVERSATION, "large")))
        for _ in range(9)
    ]
    ratio = statistics.median(jinja / ours for jinja, ours in pairs)
    assert ratio > FASTER, f"median ratio {ratio:.0f}"
