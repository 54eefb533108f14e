"""How long a prompt takes, against JSON and against Jinja in the same run: machines differ, ratios do not."""

from __future__ import annotations

import json
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
TIMES_JSON = 8.0
"""A hundred turns take 2 ms where JSON needs 0.25 ms for them, there and back."""
FASTER = 20.0


def milliseconds(build: object) -> float:
    assert callable(build)
    start = time.perf_counter()
    build()
    return (time.perf_counter() - start) * 1000


def test_a_hundred_turns_take_as_long_as_a_few_round_trips_of_json() -> None:
    pairs = [
        (
            milliseconds(lambda: render(CONVERSATION, "large")),
            milliseconds(lambda: json.loads(json.dumps(CONVERSATION))),
        )
        for _ in range(50)
    ]
    ratio = min(ours for ours, _ in pairs) / min(json_time for _, json_time in pairs)
    assert ratio < TIMES_JSON, f"ratio of the fastest of 50: {ratio:.1f}"


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
