"""Prompts to the byte and to the id: ten chat templates, thinking unset, off and on; raw texts by the tokenizer."""

from collections.abc import Callable


def test_prompt(prompt_question: str, writes_prompt: Callable[[str], None]) -> None:
    writes_prompt(prompt_question)
