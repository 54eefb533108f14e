"""JSON values in the notation of the format: strings between `<|"|>`, keys sorted without regard to case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_impl.chat.prompt.output import Output

QUOTE = '<|"|>'


def write_value(out: Output, value: object, *, null: str, quote_keys: bool) -> None:
    """Write a plain JSON value.

    `null` is the word for None ("None" before 2026-07-09). Keys are quoted in schemas only. Numbers are written as
    Python writes them: `3`, `151.5`, `1e-05`.
    """
    if value is None:
        out.mark(null)
    elif isinstance(value, str):
        write_string(out, value)
    elif isinstance(value, bool):
        out.mark("true" if value else "false")
    elif isinstance(value, dict):
        out.mark("{")
        for index, (key, item) in enumerate(sorted_items(value)):
            if index:
                out.mark(",")
            if quote_keys:
                write_string(out, key)
            else:
                out.say(key)
            out.mark(":")
            write_value(out, item, null=null, quote_keys=quote_keys)
        out.mark("}")
    elif isinstance(value, list):
        out.mark("[")
        for index, item in enumerate(value):
            if index:
                out.mark(",")
            write_value(out, item, null=null, quote_keys=quote_keys)
        out.mark("]")
    else:
        out.mark(str(value))


def write_string(out: Output, text: str) -> None:
    """Write a string between `<|"|>`."""
    out.mark(QUOTE)
    out.say(text)
    out.mark(QUOTE)


def sorted_items(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The items sorted by their keys in lower case; items with equal keys keep their order."""
    return sorted(value.items(), key=lambda item: item[0].lower())
