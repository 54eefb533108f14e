"""What an ordinary Gemma 4 checkpoint calls the text decoder: flat, or nested in a multimodal model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PREFIXES: Final = {"model.language_model.": "model.", "language_model.model.": "model.", "language_model.": ""}
TOWERS: Final = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "vision_embedder.")


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text decoder's part of a config.json: `text_config` where it is nested, else all of it."""
    return dict(config.get("text_config") or config)


def text_name(name: str) -> str | None:
    """A tensor's name in Gemma4ForCausalLM's state dict; None for a tensor of another modality."""
    if name.removeprefix("model.").startswith(TOWERS):
        return None
    for prefix, replacement in PREFIXES.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name
