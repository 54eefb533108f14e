"""The content of a message: a string, or parts of text, images, audio and video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_impl.chat.prompt.output import Output
from mlx_impl.chat.prompt.plain import cannot_write
from mlx_impl.chat.prompt.template import LAUNCH, SYSTEM_PARTS, TURN_CLOSING, Template
from mlx_impl.errors import shown

_MEDIA = {"image": "<|image|>", "audio": "<|audio|>", "video": "<|video|>"}
_ALIASES = {"image_url": "image", "input_audio": "audio"}


def write_content(
    out: Output, template: Template, message: Mapping[str, Any], where: str, *, of_model: bool
) -> tuple[bool, bool]:
    """Write the content of a message; return whether it held media, and whether it held anything."""
    content = message.get("content")
    if content is None:
        return False, False
    if isinstance(content, str):
        out.say(spoken := _without_thoughts(content) if of_model else content.strip())
        return False, bool(spoken if template.since(SYSTEM_PARTS) else content)
    if not isinstance(content, list):
        raise cannot_write(where, shown(content), "a string or a list of parts")
    media = said = False
    for number, part in enumerate(content):
        at = f"{where}[{number}]"
        text = text_of(part, at)
        if text is None:
            token = media_token(part, template, at)
            out.mark(f"\n\n{token}\n\n" if template.revision == LAUNCH and token != _MEDIA["audio"] else token)
            media = True
        else:
            out.say(spoken := _without_thoughts(text) if of_model else text.strip())
            said = said or bool(spoken)
    return media, said or media if template.since(SYSTEM_PARTS) else bool(content)


def write_system(out: Output, template: Template, content: object, where: str) -> None:
    """Write the content of the leading system message.

    A space follows each part; before 2026-04-28 a list was printed as Python prints it.
    """
    if content is None:
        return
    if isinstance(content, str):
        out.say(content.strip())
    elif not isinstance(content, list):
        raise cannot_write(where, shown(content), "a string or a list of text parts")
    elif not template.since(SYSTEM_PARTS):
        out.say(str(content))
    else:
        for text in texts(content, where):
            out.say(text.strip())
            out.mark(" ")


def texts(parts: Sequence[object], where: str) -> list[str]:
    """The texts of parts that must all be text."""
    found = []
    for number, part in enumerate(parts):
        text = text_of(part, f"{where}[{number}]")
        if text is None:
            raise cannot_write(f"{where}[{number}]", shown(part), "a text part: no other part can be written here")
        found.append(text)
    return found


def text_of(part: object, where: str) -> str | None:
    """The text of a text part; None for a part of another type. Raises MlxImplError for what is not a part."""
    if not isinstance(part, dict):
        raise cannot_write(where, shown(part), "a part such as {'type': 'text', 'text': ...}")
    if part.get("type") != "text":
        return None
    text = part.get("text")
    if not isinstance(text, str):
        raise cannot_write(f"{where}.text", shown(text), "a string")
    return text


def media_token(part: Mapping[str, Any], template: Template, where: str) -> str:
    """The placeholder of an image, audio or video part."""
    kind = part.get("type")
    if template.since(TURN_CLOSING) and isinstance(kind, str):
        kind = _ALIASES.get(kind, kind)
    if not isinstance(kind, str) or kind not in _MEDIA:
        aliases = f", and since {TURN_CLOSING} {', '.join(_ALIASES)}"
        raise cannot_write(
            f"{where}.type", shown(kind), f"text, {', '.join(_MEDIA)}{aliases}: {template.name} drops others"
        )
    return _MEDIA[kind]


def _without_thoughts(text: str) -> str:
    """`text` without everything from `<|channel>` to the next `<channel|>`, trimmed."""
    if "channel" in text:
        text = "".join([part.split("<|channel>")[0] for part in text.split("<channel|>")])
    return text.strip()
