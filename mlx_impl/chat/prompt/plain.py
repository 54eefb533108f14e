"""The arguments of a caller as plain JSON: strings, numbers, booleans, None, lists and objects, no subclasses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlx_impl.errors import MlxImplError, problem, shown

DEEPEST = 104
"""How deep values may nest: 100 levels for an argument of a call. Jinja fails at a depth that depends on the stack."""
_LONGEST_PLACE = 120
ROLES = ("system", "developer", "user", "assistant", "model", "tool")
_READ = ("reasoning", "reasoning_content", "tool_calls", "tool_responses", "tool_call_id", "name")


def plain_messages(messages: object) -> list[dict[str, Any]]:
    """The messages with the keys that the format reads; keys whose value is None are left out.

    Raises MlxImplError unless each message is an object with a known role and JSON values.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise cannot_write("messages", shown(messages), "a list of at least one message")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def plain_tools(tools: object) -> list[Any]:
    """The tools; an empty list for None. Raises MlxImplError unless they are a list of JSON values."""
    if tools is None:
        return []
    if not isinstance(tools, list | tuple):
        raise cannot_write("tools", shown(tools), "a list")
    return [json_value(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def json_value(value: object, where: str, depth: int = 0) -> Any:
    """A copy without subclasses, so that methods of a caller's classes cannot change the prompt."""
    if isinstance(value, str):
        text = str.__str__(value)
        if not text.isascii():
            _require_utf8(text, where)
        return text
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _printable(int.__index__(value), where)
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    if depth > DEEPEST:
        raise cannot_write(where, f"values nested deeper than {DEEPEST}", "less nesting")
    if isinstance(value, Mapping):
        return {_key(key, where): json_value(item, inside(where, key), depth + 1) for key, item in _items(value, where)}
    if isinstance(value, list | tuple):
        return [json_value(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise cannot_write(where, shown(value), "a JSON value")


def inside(where: str, key: object) -> str:
    """The place of a key's value, for an error."""
    plain = isinstance(key, str) and key.isascii() and key.isidentifier() and len(key) <= 40
    return f"{where}.{key}" if plain else f"{where}[{shown(key)}]"


def cannot_write(where: str, got: str, expected: str) -> MlxImplError:
    """The error for a conversation that the format cannot express."""
    place = where if len(where) <= _LONGEST_PLACE else f"{where[:_LONGEST_PLACE]}..."
    return problem(place, got=got, expected=expected, cure="correct the conversation")


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise cannot_write(where, shown(message), "an object with role and content")
    fields = dict(_items(message, where))
    role = fields.get("role")
    if not isinstance(role, str) or str.__str__(role) not in ROLES:
        raise cannot_write(f"{where}.role", shown(role), f"one of {', '.join(ROLES)}")
    plain = {key: json_value(fields[key], f"{where}.{key}") for key in _READ if fields.get(key) is not None}
    content = fields.get("content")
    if content is not None:
        plain["content"] = _content(content, f"{where}.content")
    return plain | {"role": str.__str__(role)}


def _content(content: object, where: str) -> Any:
    """A string, or parts with only their type and text, because a part may hold an image, which is not JSON."""
    if isinstance(content, list | tuple):
        return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    return json_value(content, where)


def _part(part: object, where: str) -> Any:
    if not isinstance(part, Mapping):
        return json_value(part, where)
    return {key: json_value(value, f"{where}.{key}") for key, value in _items(part, where) if key in ("type", "text")}


def _items(value: Mapping[Any, Any], where: str) -> list[tuple[Any, Any]]:
    try:
        return list(value.items())
    except Exception as error:  # a caller's class may raise anything
        raise cannot_write(where, f"an object that cannot be read ({type(error).__name__})", "a dict") from None


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise cannot_write(where, f"the key {shown(key)}", "keys that are strings")
    _require_utf8(key, where)
    return str.__str__(key)


def _printable(value: int, where: str) -> int:
    try:
        str(value)
    except ValueError:  # Python does not write ints of many thousand digits
        raise cannot_write(where, "an int of thousands of digits", "a shorter one") from None
    return value


def _require_utf8(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = f"the lone surrogate {shown(text[error.start])} in {shown(text[max(0, error.start - 20) :][:40])}"
        raise cannot_write(where, got, "text that UTF-8 can hold") from None
