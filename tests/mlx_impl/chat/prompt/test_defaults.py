"""Whose default is which: transformers leaves thinking off, mlx-lm turns it on."""

from __future__ import annotations

import pytest

from conformance.adapters.base import PromptAdapter, PromptRequest
from conformance.adapters.registry import create
from mlx_impl.chat.prompt import render

QUESTION = [{"role": "user", "content": " What is the capital of France? "}]


@pytest.mark.parametrize(
    ("impl", "thinking"),
    [("transformers", False), pytest.param("mlx_lm", True, marks=pytest.mark.slow), ("mlx_impl", False)],
)
@pytest.mark.parametrize("template", ["small@2026-07-09", "large@2026-07-09"])
@pytest.mark.usefixtures("tokenizer_file", "real_templates")
def test_the_default_of(impl: str, thinking: bool, template: str) -> None:
    pytest.importorskip({"mlx_impl": "mlx"}.get(impl, impl))
    adapter = create(impl)
    assert isinstance(adapter, PromptAdapter)
    default = adapter.prompt(PromptRequest(messages=QUESTION, template=template))
    assert default == render(QUESTION, template, enable_thinking=thinking)
    assert default != render(QUESTION, template, enable_thinking=not thinking)
