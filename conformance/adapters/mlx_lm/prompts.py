"""Prompts of mlx-lm: the fetched template and tokenizer in the wrapper that its `load` returns."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from mlx_lm import tokenizer_utils

from conformance.adapters.base import PromptRequest, Refused, Skip
from conformance.adapters.transformers.prompts import template_text
from conformance.fetch import cache

_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}


class MlxLmPrompts:
    """Mixin for adapters of mlx-lm that write prompts."""

    def prompt(self, request: PromptRequest) -> str:
        """The prompt; if thinking is unset, mlx-lm turns it on. Skip if a file was not fetched."""
        wrapper = _wrapper(cache.tokenizer_path())
        asked: dict[str, Any] = {"preserve_thinking": True} if request.preserve_thinking else {}
        if request.enable_thinking is not None:
            asked["enable_thinking"] = request.enable_thinking
        try:
            text: str = wrapper.apply_chat_template(
                [dict(message) for message in request.messages],
                tools=None if request.tools is None else [dict(tool) for tool in request.tools],
                chat_template=template_text(request.template),
                add_generation_prompt=request.add_generation_prompt,
                tokenize=False,
                **asked,
            )
        except Skip:
            raise
        except Exception as error:  # any error of Jinja, or of Python inside it, is the template's answer
            raise Refused(f"{type(error).__name__}: {error}") from None
        return text

    def encode(self, text: str, tokenizer_json: Path) -> list[int]:
        """The ids of a text, as mlx-lm encodes a prompt that the chat template wrote."""
        ids: list[int] = _wrapper(tokenizer_json).encode(text, add_special_tokens=False)
        return ids


@functools.lru_cache(maxsize=2)
def _wrapper(tokenizer_json: Path) -> Any:
    """The tokenizer as mlx-lm loads it from a checkpoint's folder."""
    if not tokenizer_json.is_file():
        raise Skip(cache.NO_TOKENIZER)
    template = template_text("small@2026-07-09")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        (checkpoint / "tokenizer.json").symlink_to(tokenizer_json.resolve())
        (checkpoint / "tokenizer_config.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
        (checkpoint / "chat_template.jinja").write_text(template, encoding="utf-8")
        return tokenizer_utils.load(checkpoint)
