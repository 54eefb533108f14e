"""Prompts: time to render a conversation of 100 turns, by mlx_impl and by Jinja where a template was fetched."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from conformance.adapters.base import PromptAdapter, PromptRequest, Skip
from conformance.adapters.registry import AdapterUnavailable, create

TURNS = 100
CONVERSATION = [
    {"role": role, "content": f" Turn {turn}: the tensor of every layer is compared with a golden. "}
    for turn in range(TURNS)
    for role in ("user", "assistant")
]


@pytest.mark.parametrize("impl", ["mlx_impl", "transformers"])
def bench_prompt(benchmark: BenchmarkFixture, impl: str) -> None:
    """A question and an answer a turn, by the current template of the large models."""
    request = PromptRequest(messages=CONVERSATION, template="large@2026-07-09")
    try:
        adapter = create(impl)
        assert isinstance(adapter, PromptAdapter)
        adapter.prompt(request)
    except (AdapterUnavailable, Skip) as error:
        pytest.skip(str(error))
    benchmark(adapter.prompt, request)
