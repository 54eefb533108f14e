"""Tool declarations: JSON Schema in the notation of the format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mlx_impl.chat.prompt.output import Output
from mlx_impl.chat.prompt.plain import cannot_write, inside
from mlx_impl.chat.prompt.template import LAUNCH, SYSTEM_PARTS, TURN_CLOSING, Template
from mlx_impl.chat.prompt.values import sorted_items, write_string, write_value
from mlx_impl.errors import shown

MISSING: Final = object()
_SCHEMA_KEYS = ("description", "type", "properties", "required", "nullable")


def field(value: object, key: str) -> Any:
    """`value[key]`, or MISSING if there is no such key or the value is not a dict."""
    return value.get(key, MISSING) if isinstance(value, dict) else MISSING


def given(value: object) -> bool:
    """Whether a field exists and is true in Python's sense: not empty, zero, false or None."""
    return value is not MISSING and bool(value)


def printed(value: object) -> str:
    """A value as Python prints it; "" if it is missing."""
    return "" if value is MISSING else str(value)


class Declarations:
    """Writes tools for one template."""

    def __init__(self, out: Output, template: Template) -> None:
        self._out = out
        self._launch = template.revision == LAUNCH
        self._keeps_reserved_names = template.since(SYSTEM_PARTS)
        self._null = null_of(template)

    def write(self, tool: object, where: str) -> None:
        """Write `declaration:NAME{description:...,parameters:{...},response:{...}}`.

        A declaration without `type` has no closing brace, as in the templates.
        """
        out, where = self._out, f"{where}.function"
        function = field(tool, "function")
        if not isinstance(function, dict):
            raise cannot_write(
                where, "none" if function is MISSING else shown(function), "an object with name and parameters"
            )
        name = field(function, "name")
        if not isinstance(name, str):
            raise cannot_write(f"{where}.name", "none" if name is MISSING else shown(name), "a string")
        out.mark("declaration:")
        out.say(name)
        out.mark("{description:")
        write_string(out, printed(field(function, "description")))
        parameters = field(function, "parameters")
        if given(parameters):
            self._write_parameters(parameters, f"{where}.parameters")
        response = field(function, "response")
        if response is not MISSING:
            self._write_response(response)
        out.mark("}")

    def _write_parameters(self, parameters: object, where: str) -> None:
        out = self._out
        out.mark(",parameters:{")
        properties, required, kind = (field(parameters, key) for key in ("properties", "required", "type"))
        if given(properties):
            out.mark("properties:{")
            self._write_properties(properties, f"{where}.properties")
            out.mark("},")
        if given(required):
            self._write_names("required:[", required, f"{where}.required")
            out.mark(",")
        if given(kind):
            self._write_type(kind)
            out.mark("}")

    def _write_response(self, response: object) -> None:
        out = self._out
        out.mark(",response:{")
        description = field(response, "description")
        if given(description):
            out.mark("description:")
            write_string(out, printed(description))
            out.mark(",")
        kind = field(response, "type")
        if printed(kind).upper() == "OBJECT":
            self._write_type(kind)
            out.mark("}")

    def _write_properties(self, properties: object, where: str, *, of_an_object_without: bool = False) -> None:
        """Write `name:{...}` of every property.

        For an object without `properties` its own keys are written as properties, except the keys of JSON Schema.
        Before 2026-04-28 these keys are left out everywhere, even if a parameter has such a name.
        """
        if not isinstance(properties, dict):
            raise cannot_write(where, shown(properties), "an object")
        hidden = _SCHEMA_KEYS if of_an_object_without or not self._keeps_reserved_names else ()
        first = True
        for name, schema in sorted_items(properties):
            if name in hidden:
                continue
            if not first:
                self._out.mark(",")
            first = False
            self._out.say(name)
            self._out.mark(":{")
            self._write_schema(schema, inside(where, name))
            self._out.mark("}")

    def _write_schema(self, schema: object, where: str) -> None:
        """Write the fields of one property: description, then those of its type, then the type."""
        out, fields = self._out, _Fields(self._out)
        description, enum, items = (field(schema, key) for key in ("description", "enum", "items"))
        kind = printed(field(schema, "type")).upper()
        if given(description):
            fields.begin("description:")
            write_string(out, printed(description))
        if self._launch and given(field(schema, "nullable")):
            fields.begin("nullable:true")
        if kind == "STRING" and given(enum):
            fields.begin("enum:")
            write_value(out, enum, null=self._null, quote_keys=True)
        elif kind == "ARRAY" and isinstance(items, dict) and items:
            self._begin_part(fields, "items:{")
            self._write_items(items, f"{where}.items")
            out.mark("}")
        if not self._launch and given(field(schema, "nullable")):
            fields.begin("nullable:true")
        if kind == "OBJECT":
            self._write_object(schema, fields, where)
        fields.begin("")
        self._write_type(field(schema, "type"))

    def _write_object(self, schema: object, fields: _Fields, where: str) -> None:
        properties, required = field(schema, "properties"), field(schema, "required")
        own = isinstance(properties, dict)
        self._begin_part(fields, "properties:{")
        self._write_properties(properties if own else schema, f"{where}.properties", of_an_object_without=not own)
        self._out.mark("}")
        if given(required):
            self._begin_part(fields, "")
            self._write_names("required:[", required, f"{where}.required")

    def _begin_part(self, fields: _Fields, label: str) -> None:
        """Begin `items`, `properties` or `required`; the launch templates always write a comma before it."""
        if self._launch:
            self._out.mark(f",{label}")
        else:
            fields.begin(label)

    def _write_items(self, items: dict[str, Any], where: str) -> None:
        """Write the schema of an array's items, every key in order."""
        out, fields = self._out, _Fields(self._out)
        for key, value in sorted_items(items):
            if value is None:
                continue
            at = inside(where, key)
            fields.begin("")
            if key == "properties":
                out.mark("properties:{")
                if isinstance(value, dict):
                    self._write_properties(value, at)
                out.mark("}")
            elif key == "required":
                self._write_names("required:[", value, at)
            elif key == "type":
                upper = value.upper() if isinstance(value, str) else [printed(k).upper() for k in _members(value, at)]
                out.mark("type:")
                write_value(out, upper, null=self._null, quote_keys=True)
            else:
                out.say(key)
                out.mark(":")
                write_value(out, value, null=self._null, quote_keys=True)

    def _write_type(self, kind: object) -> None:
        self._out.mark("type:")
        write_string(self._out, printed(kind).upper())

    def _write_names(self, label: str, names: object, where: str) -> None:
        self._out.mark(label)
        for index, name in enumerate(_members(names, where)):
            if index:
                self._out.mark(",")
            write_string(self._out, printed(name))
        self._out.mark("]")


class _Fields:
    """Writes the commas between the fields of an object."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._any = False

    def begin(self, label: str) -> None:
        self._out.mark(f",{label}" if self._any else label)
        self._any = True


def null_of(template: Template) -> str:
    """The word that the template writes for None."""
    return "null" if template.since(TURN_CLOSING) else "None"


def _members(value: object, where: str) -> Iterable[object]:
    """The members of a list, the characters of a string or the keys of an object, as in the templates."""
    if isinstance(value, list | str | dict):
        return value
    raise cannot_write(where, shown(value), "a list")
