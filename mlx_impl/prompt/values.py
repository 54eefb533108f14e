"""JSON values as the format writes them: strings between `<|"|>`, keys sorted without regard to case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlx_impl.errors import MlxImplError, problem, shown
from mlx_impl.prompt.output import Output

QUOTE = '<|"|>'
DEEPEST = 100
"""How deep values may nest: more is an attack, and Jinja fails at some depth of the caller's stack."""


def write_value(out: Output, value: object, where: str, *, null: str, quote_keys: bool, depth: int = 0) -> None:
    """Write a JSON value.

    `null` is what None is written as ("None" before 2026-07-09). Keys stand between quotes in schemas alone.
    Raises MlxImplError for what is no JSON value.
    """
    if depth > DEEPEST:
        raise too_deep(where)
    if value is None:
        out.mark(null)
    elif isinstance(value, str):
        write_string(out, value)
    elif isinstance(value, bool):
        out.mark("true" if value else "false")
    elif isinstance(value, Mapping):
        out.mark("{")
        for index, (key, item) in enumerate(sorted_items(value, where)):
            if index:
                out.mark(",")
            if quote_keys:
                write_string(out, key)
            else:
                out.say(key)
            out.mark(":")
            write_value(out, item, where, null=null, quote_keys=quote_keys, depth=depth + 1)
        out.mark("}")
    elif isinstance(value, list | tuple):
        out.mark("[")
        for index, item in enumerate(value):
            if index:
                out.mark(",")
            write_value(out, item, where, null=null, quote_keys=quote_keys, depth=depth + 1)
        out.mark("]")
    else:
        out.mark(number(value, where))


def write_string(out: Output, text: str) -> None:
    out.mark(QUOTE)
    out.say(text)
    out.mark(QUOTE)


def sorted_items(value: Mapping[Any, Any], where: str) -> list[tuple[str, Any]]:
    """The items in the order of their keys in lower case; equal ones keep their order. MlxImplError on other keys."""
    for key in value:
        if not isinstance(key, str):
            raise bad(where, f"the key {shown(key)}", "keys that are strings")
    return sorted(value.items(), key=lambda item: item[0].lower())


def number(value: object, where: str) -> str:
    """An int or a finite float as Python writes it: `3`, `151.5`, `1e-05`."""
    if isinstance(value, int):
        try:
            return str(value)
        except ValueError:  # Python writes no int of more than some thousand digits
            raise bad(where, "an int of thousands of digits", "a number") from None
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    raise bad(where, shown(value), "a JSON value")


def bad(where: str, got: str, expected: str) -> MlxImplError:
    """The error of a conversation that the format cannot express."""
    return problem(where, got=got, expected=expected, cure="mend the conversation")


def too_deep(where: str) -> MlxImplError:
    return bad(where, f"values nested deeper than {DEEPEST}", "flatter ones")
