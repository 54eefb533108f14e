"""What a caller passed, as plain JSON: strings, numbers, booleans, None, lists and objects of exactly these types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlx_impl.errors import MlxImplError, problem, shown

DEEPEST = 104
"""How deep values may nest: an argument of a call 100 levels. Jinja fails at some depth of the caller's stack."""
_LONGEST_PLACE = 120
ROLES = ("system", "developer", "user", "assistant", "model", "tool")
_READ = ("reasoning", "reasoning_content", "tool_calls", "tool_responses", "tool_call_id", "name")


def plain_messages(messages: object) -> list[dict[str, Any]]:
    """The messages with what the format reads of them; keys whose value is None are left out.

    MlxImplError unless each is an object with a known role and holds JSON.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise bad("messages", shown(messages), "a list of at least one message")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def plain_tools(tools: object) -> list[Any]:
    """The tools; none for None. MlxImplError unless they are a list and hold JSON."""
    if tools is None:
        return []
    if not isinstance(tools, list | tuple):
        raise bad("tools", shown(tools), "a list")
    return [json_value(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def json_value(value: object, where: str, depth: int = 0) -> Any:
    """A copy that holds no subclass: what `str`, `==` or `len` of a caller's class say must not reach the prompt."""
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
        raise bad(where, f"values nested deeper than {DEEPEST}", "flatter ones")
    if isinstance(value, Mapping):
        return {_key(key, where): json_value(item, inside(where, key), depth + 1) for key, item in _items(value, where)}
    if isinstance(value, list | tuple):
        return [json_value(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise bad(where, shown(value), "a JSON value")


def inside(where: str, key: object) -> str:
    """The place of a key's value."""
    plain = isinstance(key, str) and key.isascii() and key.isidentifier() and len(key) <= 40
    return f"{where}.{key}" if plain else f"{where}[{shown(key)}]"


def bad(where: str, got: str, expected: str) -> MlxImplError:
    """The error of a conversation that the format cannot express."""
    place = where if len(where) <= _LONGEST_PLACE else f"{where[:_LONGEST_PLACE]}..."
    return problem(place, got=got, expected=expected, cure="mend the conversation")


def _message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise bad(where, shown(message), "an object with role and content")
    fields = dict(_items(message, where))
    role = fields.get("role")
    if not isinstance(role, str) or str.__str__(role) not in ROLES:
        raise bad(f"{where}.role", shown(role), f"one of {', '.join(ROLES)}")
    plain = {key: json_value(fields[key], f"{where}.{key}") for key in _READ if fields.get(key) is not None}
    content = fields.get("content")
    if content is not None:
        plain["content"] = _content(content, f"{where}.content")
    return plain | {"role": str.__str__(role)}


def _content(content: object, where: str) -> Any:
    """A string, or parts with their type and text alone: a part may hold a picture, which is nobody's JSON."""
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
        raise bad(where, f"an object that cannot be read ({type(error).__name__})", "a dict") from None


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise bad(where, f"the key {shown(key)}", "keys that are strings")
    _require_utf8(key, where)
    return str.__str__(key)


def _printable(value: int, where: str) -> int:
    try:
        str(value)
    except ValueError:  # Python writes no int of more than some thousand digits
        raise bad(where, "an int of thousands of digits", "a shorter one") from None
    return value


def _require_utf8(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        got = f"the lone surrogate {shown(text[error.start])} in {shown(text[max(0, error.start - 20) :][:40])}"
        raise bad(where, got, "text that UTF-8 can hold") from None
