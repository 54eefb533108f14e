"""The builder against the published templates, run through transformers, on random conversations and tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_impl import MlxImplError
from mlx_impl.chat.prompt import TEMPLATES, render
from tests.support.conversations import CONVERSATIONS, TIDY_CONVERSATIONS, TIDY_TOOLS, TOOLS

pytest.importorskip("transformers", reason="pip install 'gemma4-conformance[reference]'")
from reference.chat.real import RealChat, TemplateRaises

ARGUMENTS = st.fixed_dictionaries(
    {
        "enable_thinking": st.sampled_from([None, True, False]),
        "add_generation_prompt": st.booleans(),
        "preserve_thinking": st.booleans(),
    }
)
many = settings(
    max_examples=20 * settings().max_examples,  # of the chosen profile: 400, or 20,000 at night
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def chat(tokenizer_file: Path) -> RealChat:
    return RealChat(tokenizer_file)


@pytest.mark.slow
@many
@given(CONVERSATIONS, TOOLS, st.sampled_from(TEMPLATES), ARGUMENTS)
def test_whatever_it_renders_is_what_the_template_renders(
    chat: RealChat, real_templates: dict[str, str], messages: Any, tools: Any, template: str, arguments: Any
) -> None:
    try:
        built = render(messages, template, tools=tools, **arguments)
    except MlxImplError:
        return  # what it must not refuse is tested below
    assert built == chat.text(messages, real_templates[template], tools=tools, **arguments)


@pytest.mark.slow
@many
@given(TIDY_CONVERSATIONS, TIDY_TOOLS, st.sampled_from(TEMPLATES), ARGUMENTS)
def test_a_tidy_conversation_is_never_refused(
    chat: RealChat, real_templates: dict[str, str], messages: Any, tools: Any, template: str, arguments: Any
) -> None:
    expected = chat.text(messages, real_templates[template], tools=tools, **arguments)
    assert render(messages, template, tools=tools, **arguments) == expected


@pytest.mark.slow
@many
@given(CONVERSATIONS, TOOLS, st.sampled_from(TEMPLATES), ARGUMENTS)
def test_what_a_template_refuses_is_refused(
    chat: RealChat, real_templates: dict[str, str], messages: Any, tools: Any, template: str, arguments: Any
) -> None:
    try:
        chat.text(messages, real_templates[template], tools=tools, **arguments)
    except TemplateRaises:
        with pytest.raises(MlxImplError):
            render(messages, template, tools=tools, **arguments)
