"""Prompts to the byte and to the id: ten chat templates, thinking unset, off and on; raw texts by the tokenizer."""

from collections.abc import Callable

TOPIC = "prompts"


def test_prompts(case_id: str, conforms: Callable[[str], None]) -> None:
    conforms(case_id)
