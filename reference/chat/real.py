"""Runs a published template and the published tokenizer in transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast


class TemplateRaises(Exception):
    """A template refuses a conversation; the message is what it raised, with its type."""


class RealChat:
    """`apply_chat_template` of transformers, and the ids of a text."""

    def __init__(self, tokenizer_json: Path) -> None:
        self._tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(tokenizer_json), bos_token="<bos>"
        )

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        template: str,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool | None = None,
        add_generation_prompt: bool = True,
        preserve_thinking: bool = False,
    ) -> str:
        """The prompt by the text of a chat_template.jinja. Raises TemplateRaises.

        `enable_thinking` None passes nothing, which leaves thinking off.
        """
        thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        kept = {"preserve_thinking": True} if preserve_thinking else {}
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=template,
                tools=None if tools is None else [dict(tool) for tool in tools],
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **thinking,
                **kept,
            )
        except Exception as error:  # any error of Jinja, or of Python inside it, is the template's answer
            raise TemplateRaises(f"{type(error).__name__}: {error}") from None
        assert isinstance(text, str)
        return text

    def ids(self, text: str) -> list[int]:
        """The ids of a text; none is added, as a prompt has its own `<bos>`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def special_tokens(self) -> dict[str, int]:
        """The added tokens, in the order of their ids."""
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return dict(sorted(added.items(), key=lambda item: item[1]))


def versions() -> dict[str, str]:
    """The versions of the libraries that render and encode."""
    return {name: version(name) for name in ("jinja2", "tokenizers", "transformers")}
