"""What APIs refuse in a schema that they are to hold a model to, as their vendors document it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

JSON = dict[str, Any]

_SHAPE = frozenset(
    {
        *("type", "description", "title", "enum", "const", "anyOf", "$ref", "$defs", "format"),
        *("properties", "required", "additionalProperties", "items"),
    }
)
_LIMITS = frozenset(
    {
        *("pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems"),
    }
)
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """The part of JSON Schema that an API holds a model to."""

    keywords: frozenset[str]
    formats: frozenset[str]
    all_required: bool
    """Whether every property of an object has to be required."""
    recursion: bool
    """Whether a schema may hold itself."""

    def problem(self, schema: JSON) -> str | None:
        """What the API would refuse in ``schema``, if anything."""
        if schema.get("type") != "object":
            return "the root must be an object"
        return next(self._problems(schema, schema, ()), None)

    def _problems(self, node: Any, root: JSON, inside: tuple[str, ...]) -> Iterator[str]:
        if not isinstance(node, dict):
            yield f"{node!r} is no schema"
            return
        schema = cast("JSON", node)
        if unknown := schema.keys() - self.keywords:
            yield f"{sorted(unknown)} is not permitted"
        if "$ref" in schema:
            yield from self._reference(schema, root, inside)
        elif not schema.keys() & {"type", "anyOf", "enum", "const"}:
            yield "a schema must have a type"
        if "format" in schema and schema["format"] not in self.formats:
            yield f"{schema['format']!r} is not a valid format"
        if "object" in _kinds(schema):
            yield from self._object(schema)
        if "array" in _kinds(schema) and "items" not in schema:
            yield "an array schema misses items"
        for inner in (*schema.get("properties", {}).values(), *schema.get("anyOf", ())):
            yield from self._problems(inner, root, inside)
        if "items" in schema:
            yield from self._problems(schema["items"], root, inside)

    def _object(self, schema: JSON) -> Iterator[str]:
        if schema.get("additionalProperties") is not False:
            yield "additionalProperties is required to be supplied and to be false"
        missing = schema.get("properties", {}).keys() - set(schema.get("required", ()))
        if missing and self.all_required:
            yield f"required must include every property; missing are {sorted(missing)}"

    def _reference(self, schema: JSON, root: JSON, inside: tuple[str, ...]) -> Iterator[str]:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        if len(schema) > 1:
            yield "$ref cannot have keywords beside it"
        if name not in root.get("$defs", {}):
            yield f"there is no {schema['$ref']}"
        elif name not in inside:
            yield from self._problems(root["$defs"][name], root, (*inside, name))
        elif not self.recursion:
            yield "recursive schemas are not supported"


def _kinds(schema: JSON) -> list[Any]:
    kind = schema.get("type")
    return cast("list[Any]", kind) if isinstance(kind, list) else [kind]


MESSAGES = Subset(
    keywords=_SHAPE | {"allOf", "default"},
    formats=_FORMATS | {"uri"},
    all_required=False,
    recursion=False,
)
"""Anthropic's."""

OPENAI = Subset(keywords=_SHAPE | _LIMITS, formats=_FORMATS, all_required=True, recursion=True)
"""OpenAI's, of both its APIs."""
