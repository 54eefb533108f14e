"""Tool calls and the answers of the tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_impl.chat.prompt.content import media_token, text_of
from mlx_impl.chat.prompt.output import Output
from mlx_impl.chat.prompt.plain import cannot_write
from mlx_impl.chat.prompt.template import TOOL_MEDIA, TURN_CLOSING, Template
from mlx_impl.chat.prompt.tools import MISSING, field, null_of
from mlx_impl.chat.prompt.values import sorted_items, write_value
from mlx_impl.errors import shown


class Calls:
    """Writes calls and responses for one template."""

    def __init__(self, out: Output, template: Template) -> None:
        self._out = out
        self._current = template.since(TURN_CLOSING)
        self._template = template
        self._null = null_of(template)

    def write_call(self, call: object, where: str) -> None:
        """Write `<|tool_call>call:NAME{key:value,...}<tool_call|>`.

        Before 2026-07-09 arguments in the form of a JSON string were written unchanged; since then they are refused.
        """
        out, where = self._out, f"{where}.function"
        function = field(call, "function")
        arguments = field(function, "arguments")
        out.mark("<|tool_call>call:")
        out.say(_name(field(function, "name"), where))
        out.mark("{")
        if isinstance(arguments, dict):
            self._write_fields(arguments)
        elif self._current and arguments is not None:
            got = "none" if arguments is MISSING else shown(arguments)
            raise cannot_write(f"{where}.arguments", got, "an object (or null): parse a JSON string first")
        elif isinstance(arguments, str):
            out.say(arguments)
        out.mark("}<tool_call|>")

    def write_native(self, response: object, where: str) -> None:
        """Write an entry of `tool_responses`, as Gemma's own documentation has them: name and response."""
        name, body = field(response, "name"), field(response, "response")
        if name is MISSING or (self._current and not name):
            name = "unknown"
        self._write_response(_name(name, where), [] if body is MISSING else body)

    def write_tool_message(self, message: Mapping[str, Any], called: Mapping[object, object], where: str) -> None:
        """Write a message of role tool; `called` maps the id of every call to the name of its function."""
        name = message.get("name")
        if self._current and not name:
            name = "unknown"
        name = called.get(_key(message.get("tool_call_id")), name)
        name = _name(name, where)
        where, body = f"{where}.content", message.get("content")
        if isinstance(body, dict):
            raise cannot_write(where, shown(body), "a string or a list of parts: write an object as JSON")
        if not isinstance(body, list):
            self._write_response(name, body)
            return
        text, media = [], []
        for number, part in enumerate(body):
            at = f"{where}[{number}]"
            said = text_of(part, at)
            if said is not None:
                text.append(said)
            elif not self._template.since(TOOL_MEDIA):
                raise cannot_write(
                    at, shown(part), f"only text: {self._template.name} drops other parts of a tool's answer"
                )
            else:
                media.append(media_token(part, self._template, at))
        self._write_response(name, "".join(text))
        for token in media:
            self._out.mark(token)

    def _write_response(self, name: str, body: object) -> None:
        """`<|tool_response>response:NAME{key:value,...}<tool_response|>`; a body that is no object is its `value`."""
        out = self._out
        out.mark("<|tool_response>response:")
        out.say(name)
        out.mark("{")
        self._write_fields(body if isinstance(body, dict) else {"value": body})
        out.mark("}<tool_response|>")

    def _write_fields(self, fields: Mapping[str, Any]) -> None:
        for index, (key, value) in enumerate(sorted_items(fields)):
            if index:
                self._out.mark(",")
            self._out.say(key)
            self._out.mark(":")
            write_value(self._out, value, null=self._null, quote_keys=False)


def names_by_id(calls: Sequence[object]) -> dict[object, object]:
    """Id of a call -> name of its function; the last call counts among calls with one id, or without an id."""
    known = (call for call in calls if isinstance(call, dict))
    return {_key(call.get("id")): field(field(call, "function"), "name") for call in known}


def _key(call_id: object) -> object:
    """An id as the key of a dict, in which 1 equals 1.0 as in the templates."""
    return repr(call_id) if isinstance(call_id, list | dict) else call_id


def _name(name: object, where: str) -> str:
    if isinstance(name, str):
        return name
    raise cannot_write(f"{where}.name", "none" if name is MISSING or name is None else shown(name), "a string")
