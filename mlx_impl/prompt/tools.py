"""Tool declarations: a JSON Schema as the format writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mlx_impl.errors import shown
from mlx_impl.prompt.output import Output
from mlx_impl.prompt.template import LAUNCH, SYSTEM_PARTS, TURN_CLOSING, Template
from mlx_impl.prompt.values import DEEPEST, bad, sorted_items, too_deep, write_string, write_value

MISSING: Final = object()
_SCHEMA_KEYS = ("description", "type", "properties", "required", "nullable")


def field(value: object, key: str) -> Any:
    """`value[key]`, or MISSING where there is none: what is no mapping has no fields."""
    return value.get(key, MISSING) if isinstance(value, Mapping) else MISSING


def given(value: object) -> bool:
    """Whether a field is there and says something: not empty, zero, false or None."""
    return value is not MISSING and bool(value)


def plain(value: object, where: str) -> str:
    """A value printed outside any quotes: "" where there is none, else as Python prints it."""
    if value is MISSING:
        return ""
    if value is None or isinstance(value, str | bool | int | float | list | tuple | Mapping):
        try:
            return str(value)
        except (ValueError, RecursionError):  # an int of thousands of digits, lists without end
            raise bad(where, "a value that cannot be printed", "a shorter or flatter one") from None
    raise bad(where, shown(value), "a JSON value")


class Declarations:
    """Writes tools for one template."""

    def __init__(self, out: Output, template: Template) -> None:
        self._out = out
        self._launch = template.revision == LAUNCH
        self._keeps_reserved_names = template.since(SYSTEM_PARTS)
        self._null = null_of(template)

    def write(self, tool: object, where: str) -> None:
        """Write `declaration:NAME{description:...,parameters:{...},response:{...}}`.

        A declaration without `type` lacks its closing brace, as the templates leave it.
        """
        out, where = self._out, f"{where}.function"
        function = field(tool, "function")
        if not isinstance(function, Mapping):
            raise bad(where, "none" if function is MISSING else shown(function), "an object with name and parameters")
        name = field(function, "name")
        if not isinstance(name, str):
            raise bad(f"{where}.name", "none" if name is MISSING else shown(name), "a string")
        out.mark("declaration:")
        out.say(name)
        out.mark("{description:")
        write_string(out, plain(field(function, "description"), f"{where}.description"))
        parameters = field(function, "parameters")
        if given(parameters):
            self._write_parameters(parameters, f"{where}.parameters")
        response = field(function, "response")
        if response is not MISSING:
            self._write_response(response, f"{where}.response")
        out.mark("}")

    def _write_parameters(self, parameters: object, where: str) -> None:
        out = self._out
        out.mark(",parameters:{")
        properties, required, kind = (field(parameters, key) for key in ("properties", "required", "type"))
        if given(properties):
            out.mark("properties:{")
            self._write_properties(properties, f"{where}.properties", depth=0)
            out.mark("},")
        if given(required):
            self._write_names("required:[", required, f"{where}.required")
            out.mark(",")
        if given(kind):
            self._write_type(kind, f"{where}.type")
            out.mark("}")

    def _write_response(self, response: object, where: str) -> None:
        out = self._out
        out.mark(",response:{")
        description = field(response, "description")
        if given(description):
            out.mark("description:")
            write_string(out, plain(description, f"{where}.description"))
            out.mark(",")
        kind = field(response, "type")
        if plain(kind, f"{where}.type").upper() == "OBJECT":
            self._write_type(kind, f"{where}.type")
            out.mark("}")

    def _write_properties(
        self, properties: object, where: str, *, depth: int, of_an_object_without: bool = False
    ) -> None:
        """Write `name:{...}` of every property.

        An object without `properties` is written as if its own keys were some, all but the keys of JSON Schema.
        Before 2026-04-28 these are left out everywhere, even where a parameter bears the name.
        """
        if not isinstance(properties, Mapping):
            raise bad(where, shown(properties), "an object")
        if depth > DEEPEST:
            raise too_deep(where)
        hidden = _SCHEMA_KEYS if of_an_object_without or not self._keeps_reserved_names else ()
        first = True
        for name, schema in sorted_items(properties, where):
            if name in hidden:
                continue
            if not first:
                self._out.mark(",")
            first = False
            self._out.say(name)
            self._out.mark(":{")
            self._write_schema(schema, f"{where}.{name}", depth)
            self._out.mark("}")

    def _write_schema(self, schema: object, where: str, depth: int) -> None:
        """Write the fields of one property: description, then those of its type, then the type."""
        out, fields = self._out, _Fields(self._out)
        description, enum, items = (field(schema, key) for key in ("description", "enum", "items"))
        kind = plain(field(schema, "type"), f"{where}.type").upper()
        if given(description):
            fields.begin("description:")
            write_string(out, plain(description, f"{where}.description"))
        if self._launch and given(field(schema, "nullable")):
            fields.begin("nullable:true")
        if kind == "STRING" and given(enum):
            fields.begin("enum:")
            write_value(out, enum, f"{where}.enum", null=self._null, quote_keys=True)
        elif kind == "ARRAY" and isinstance(items, Mapping) and items:
            self._begin_part(fields, "items:{")
            self._write_items(items, f"{where}.items", depth)
            out.mark("}")
        if not self._launch and given(field(schema, "nullable")):
            fields.begin("nullable:true")
        if kind == "OBJECT":
            self._write_object(schema, fields, where, depth)
        fields.begin("")
        self._write_type(field(schema, "type"), f"{where}.type")

    def _write_object(self, schema: object, fields: _Fields, where: str, depth: int) -> None:
        properties, required = field(schema, "properties"), field(schema, "required")
        own = isinstance(properties, Mapping)
        self._begin_part(fields, "properties:{")
        self._write_properties(
            properties if own else schema, f"{where}.properties", depth=depth + 1, of_an_object_without=not own
        )
        self._out.mark("}")
        if given(required):
            self._begin_part(fields, "")
            self._write_names("required:[", required, f"{where}.required")

    def _begin_part(self, fields: _Fields, label: str) -> None:
        """Begin `items`, `properties` or `required`; at launch behind a comma, whatever came before or comes next."""
        if self._launch:
            self._out.mark(f",{label}")
        else:
            fields.begin(label)

    def _write_items(self, items: Mapping[Any, Any], where: str, depth: int) -> None:
        """Write the schema of an array's items, every key in order."""
        out, fields = self._out, _Fields(self._out)
        for key, value in sorted_items(items, where):
            if value is None:
                continue
            at = f"{where}.{key}"
            fields.begin("")
            if key == "properties":
                out.mark("properties:{")
                if isinstance(value, Mapping):
                    self._write_properties(value, at, depth=depth + 1)
                out.mark("}")
            elif key == "required":
                self._write_names("required:[", value, at)
            elif key == "type":
                upper = value.upper() if isinstance(value, str) else [plain(k, at).upper() for k in _members(value, at)]
                out.mark("type:")
                write_value(out, upper, at, null=self._null, quote_keys=True)
            else:
                out.say(key)
                out.mark(":")
                write_value(out, value, at, null=self._null, quote_keys=True)

    def _write_type(self, kind: object, where: str) -> None:
        self._out.mark("type:")
        write_string(self._out, plain(kind, where).upper())

    def _write_names(self, label: str, names: object, where: str) -> None:
        self._out.mark(label)
        for index, name in enumerate(_members(names, where)):
            if index:
                self._out.mark(",")
            write_string(self._out, plain(name, where))
        self._out.mark("]")


class _Fields:
    """Commas between the fields of an object."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._any = False

    def begin(self, label: str) -> None:
        self._out.mark(f",{label}" if self._any else label)
        self._any = True


def null_of(template: Template) -> str:
    """What None is written as."""
    return "null" if template.since(TURN_CLOSING) else "None"


def _members(value: object, where: str) -> Iterable[object]:
    """What a list holds; of a string its characters and of an object its keys, as the templates take them."""
    if isinstance(value, list | tuple | str | Mapping):
        return value
    raise bad(where, shown(value), "a list")
