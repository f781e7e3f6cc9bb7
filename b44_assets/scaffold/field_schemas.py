"""Reads the properties of a schema into fields: types and their aliases, `$ref`, `allOf`, `anyOf`, nested objects and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from b44_assets.scaffold.model import ABSENT, Field

_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object")
# What people and models write where JSON Schema has another word: its type and its format.
_ALIASES: Final[Mapping[str, tuple[str, str]]] = {
    "text": ("string", "text"),
    "richtext": ("string", "richtext"),
    "str": ("string", ""),
    "uuid": ("string", "uuid"),
    "email": ("string", "email"),
    "url": ("string", "uri"),
    "file": ("string", "uri"),
    "image": ("string", "uri"),
    "enum": ("string", ""),
    "date": ("string", "date"),
    "datetime": ("string", "date-time"),
    "date-time": ("string", "date-time"),
    "timestamp": ("string", "date-time"),
    "time": ("string", "time"),
    "float": ("number", ""),
    "double": ("number", ""),
    "decimal": ("number", ""),
    "int": ("integer", ""),
    "bool": ("boolean", ""),
    "list": ("array", ""),
    "map": ("object", ""),
    "json": ("object", ""),
}
_FORMATS: Final = {"datetime": "date-time", "timestamp": "date-time", "url": "uri"}
_NUMBERS: Final = frozenset(
    {"minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"multipleOf", "minItems", "maxItems"}
)
_UNDERSTOOD: Final = _NUMBERS | frozenset(
    {"type", "format", "enum", "const", "default", "pattern", "items", "properties", "required", "unique", "nullable"}
    | {"description", "title", "rls", "$ref", "allOf", "anyOf", "oneOf", "name", "uniqueItems", "additionalProperties"}
    | {
        "example",
        "examples",
        "relation",
        "ref",
        "references",
        "readOnly",
        "writeOnly",
        "label",
        "placeholder",
        "$comment",
    }
)
_DEEPEST: Final = 32
_MOST: Final = 20_000
"""Fields of one entity with all that is nested in them; `$ref` can make any number of a few lines."""


def read_fields(properties: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    """Read the fields of an entity.

    Args:
        properties: Of its schema.
        schema: The whole, for `$ref`.

    Returns:
        The fields in their order, and a line for each thing that is not understood and therefore lost.
    """
    reader = _Reader(schema)
    fields = tuple(reader.field(name, one, ()) for name, one in properties.items())
    return fields, tuple(reader.lost)


class _Reader:
    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._left = _MOST
        self.lost: list[str] = []

    def field(self, name: str, given: Any, within: tuple[str, ...], refs: frozenset[str] = frozenset()) -> Field:
        """One property, an item of an array or a member of an object.

        Args:
            name: Of the field.
            given: What the schema says of it.
            within: Names of what it is a part of.
            refs: The references on the way to it, any of which would lead in a circle.
        """
        path = ".".join((*within, name))
        self._left -= 1
        if self._left <= 0:
            if self._left == 0:
                self._lose(
                    f"{path}: is not read, nor what comes after: there are more than {_MOST:,} fields with the nested ones"
                )
            return Field(name)
        if isinstance(given, str):
            given = {"type": given}
        if not isinstance(given, dict):
            if given is not True:
                self._lose(f"{path}: is no schema; its values are kept as text")
            return Field(name)
        schema, refs = self._resolved(path, given, refs)
        types, nullable, form = self._types(path, schema)
        unknown = sorted(
            key
            for key in schema.keys() - _UNDERSTOOD
            if isinstance(schema[key], dict | list) and not key.startswith("x-")
        )
        if unknown:
            self._lose(f"{path}: not understood, and without effect here: {', '.join(unknown)}")
        description = schema.get("description") or schema.get("title")
        deeper = len(within) < _DEEPEST
        inner = (*within, name)
        items = schema.get("items")
        members = schema.get("properties")
        enum = self._enum(path, schema)
        return Field(
            name,
            types=types,
            nullable=nullable,
            format=form,
            enum=enum,
            default=schema.get("default", ABSENT),
            limits=MappingProxyType(self._limits(path, schema)),
            items=self.field("[]", items, inner, refs) if deeper and isinstance(items, dict | str) else None,
            properties=tuple(self.field(key, one, inner, refs) for key, one in members.items())
            if deeper and isinstance(members, dict)
            else (),
            required=schema.get("required") is True,
            unique=schema.get("unique") is True,
            description=" ".join(description.split()) if isinstance(description, str) else "",
            target=_target(schema),
            rls=MappingProxyType(dict(rules)) if isinstance(rules := schema.get("rls"), dict) else MappingProxyType({}),
        )

    def _lose(self, text: str) -> None:
        self.lost.append(text)

    def _resolved(
        self, path: str, given: Mapping[str, Any], refs: frozenset[str]
    ) -> tuple[Mapping[str, Any], frozenset[str]]:
        """A schema with what it refers to and what it is composed of in the place of `$ref`, `allOf`, `anyOf` and `oneOf`."""
        schema = dict(given)
        while (ref := schema.pop("$ref", None)) is not None:
            if ref in refs:
                # A structure that holds itself is one all the same.
                return {"type": "object", "description": schema.get("description", "")}, refs
            target = self._pointed_at(ref)
            if target is None:
                self._lose(f"{path}: $ref {ref!r} leads nowhere within the file; its values are kept as text")
                break
            refs |= {ref}
            schema = {**target, **schema}
        for part in _dicts(schema.pop("allOf", None)):
            inner, refs = self._resolved(path, part, refs)
            members = {**inner.get("properties", {}), **schema.get("properties", {})}
            schema = {**inner, **schema, **({"properties": members} if members else {})}
        choices: list[Mapping[str, Any]] = []
        for key in ("anyOf", "oneOf"):
            for part in _dicts(schema.pop(key, None)):
                inner, refs = self._resolved(path, part, refs)
                choices.append(inner)
        return (_either(schema, choices), refs) if choices else (schema, refs)

    def _pointed_at(self, ref: Any) -> dict[str, Any] | None:
        if not isinstance(ref, str) or not ref.startswith("#"):
            return None
        at: Any = self._schema
        for step in ref.removeprefix("#").strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            if step and isinstance(at, dict):
                at = at.get(step)
            elif step:
                return None
        return at if isinstance(at, dict) else None

    def _types(self, path: str, schema: Mapping[str, Any]) -> tuple[tuple[str, ...], bool, str]:
        """The types without `null`, whether that is one, and the format."""
        given = schema.get("type")
        named = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        form = schema.get("format")
        form = _FORMATS.get(form, form) if isinstance(form, str) else ""
        types: list[str] = []
        nullable = schema.get("nullable") is True
        for word in named:
            plain = str(word).lower()
            alias, of_alias = _ALIASES.get(plain, (plain, ""))
            if plain == "null":
                nullable = True
            elif alias in _TYPES:
                types.append(alias)
                form = form or of_alias
            elif plain != "any":
                self._lose(f"{path}: {word!r} is no type of a schema; its values are kept as text")
        if not named:
            types = _implied(schema)
        return tuple(dict.fromkeys(types)), nullable, form

    def _enum(self, path: str, schema: Mapping[str, Any]) -> tuple[Any, ...] | None:
        if "const" in schema:
            return (schema["const"],)
        enum = schema.get("enum")
        if enum is None:
            return None
        if not isinstance(enum, list) or not enum:
            self._lose(f"{path}: enum is no list of values, and has no effect")
            return None
        seen: list[Any] = []
        for value in enum:
            if not any(value == other and type(value) is type(other) for other in seen):
                seen.append(value)
        return tuple(seen)

    def _limits(self, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        for key in sorted(schema.keys() & _NUMBERS):
            value = schema[key]
            if isinstance(value, int | Decimal):
                limits[key] = value
            else:
                self._lose(f"{path}: {key} is no number, and has no effect")
        if "pattern" in schema:
            if isinstance(schema["pattern"], str):
                limits["pattern"] = schema["pattern"]
            else:
                self._lose(f"{path}: pattern is no text, and has no effect")
        return limits


def _dicts(given: Any) -> list[dict[str, Any]]:
    return [part for part in given if isinstance(part, dict)] if isinstance(given, list) else []


def _either(schema: Mapping[str, Any], choices: list[Mapping[str, Any]]) -> dict[str, Any]:
    """A schema that any of some others may be: all of their types, and their values where each lists them."""
    types: list[str] = []
    for choice in choices:
        given = choice.get("type")
        types += [given] if isinstance(given, str) else given if isinstance(given, list) else _implied(choice)
    joined = dict(schema)
    if types and "type" not in joined:
        joined["type"] = list(dict.fromkeys(types))
    real = [choice for choice in choices if choice.get("type") != "null"]
    if real and "enum" not in joined and all("enum" in choice or "const" in choice for choice in real):
        joined["enum"] = [
            value for choice in real for value in (choice["enum"] if "enum" in choice else [choice["const"]])
        ]
    if len(real) == 1:
        joined = {**real[0], **joined}
    return joined


def _implied(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema without `type` speaks of all the same."""
    if "properties" in schema:
        return ["object"]
    if "items" in schema:
        return ["array"]
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str} or isinstance(schema.get("format"), str):
        return ["string"]
    if kinds and kinds <= {int, Decimal}:
        return ["number"]
    return ["boolean"] if kinds == {bool} else []


def _target(schema: Mapping[str, Any]) -> str:
    """The entity that a schema says a field points at, in the words that some schemas have for it."""
    for key in ("relation", "references", "ref"):
        given = schema.get(key)
        if isinstance(given, dict):
            given = given.get("entity") or given.get("target")
        if isinstance(given, str) and given:
            return given
    return ""
