"""Prompts of transformers: its `apply_chat_template` with the fetched template and tokenizer."""

from __future__ import annotations

import functools
from pathlib import Path

from conformance.adapters.base import PromptRequest, Refused, Skip
from conformance.fetch import cache
from reference.chat.real import RealChat, TemplateRaises


class TransformersPrompts:
    """Mixin for adapters of transformers that write prompts."""

    def prompt(self, request: PromptRequest) -> str:
        """The prompt; if thinking is unset, transformers leaves it off. Skip if a file is missing."""
        try:
            chat, template = _chat(cache.tokenizer_path()), template_text(request.template)
            return chat.text(request.messages, template, **request.settings())
        except TemplateRaises as error:
            raise Refused(str(error)) from None

    def encode(self, text: str, tokenizer_json: Path) -> list[int]:
        """The ids of a text."""
        return _chat(tokenizer_json).ids(text)


@functools.cache
def template_text(name: str) -> str:
    """The fetched template of this name; Skip when there is none."""
    path = cache.template_path(name)
    if not path.is_file():
        raise Skip(f"the template {name} was not fetched: gemma4-conformance fetch templates")
    return path.read_bytes().decode()


@functools.lru_cache(maxsize=2)
def _chat(tokenizer_json: Path) -> RealChat:
    if not tokenizer_json.is_file():
        raise Skip(cache.NO_TOKENIZER)
    return RealChat(tokenizer_json)
