"""JSON Schema, as far as it is needed to make values of it. What is not understood is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from mcp_types import Tool

from agentloop_providers.offline.words import split, stems

Schema = dict[str, Any]

_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")


def resolve(schema: Any, root: Schema) -> Schema:
    """``schema`` with its reference followed and its ``allOf`` merged; ``{}`` for rubbish."""
    merged: Schema = {}
    waiting: list[Any] = [schema]
    for _ in range(40):
        if not waiting:
            break
        part = waiting.pop(0)
        if not isinstance(part, dict):
            continue
        here = cast("Schema", part)
        for key, value in here.items():
            merged.setdefault(key, value)
        if isinstance(here.get("$ref"), str):
            waiting.append(_follow(here["$ref"], root))
        waiting += items_of(here.get("allOf"))
        for member in items_of(here.get("allOf")):
            _merge_members(merged, member)
    return merged


def branches(schema: Schema) -> list[Any]:
    """The alternatives of a schema, those that are only ``null`` last."""
    found = [*items_of(schema.get("anyOf")), *items_of(schema.get("oneOf"))]
    return sorted(found, key=is_null)


def is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and cast("Schema", schema).get("type") == "null"


def type_of(schema: Schema) -> str | None:
    """The type of values, as said or as the other keywords suggest; None where nothing does."""
    said = schema.get("type")
    types = [t for t in (items_of(said) or [said]) if isinstance(t, str) and t in _TYPES]
    if types:
        return next((t for t in types if t != "null"), "null")
    for keys, name in (
        (("properties", "required", "additionalProperties"), "object"),
        (("items", "prefixItems", "minItems"), "array"),
        (("minimum", "maximum", "multipleOf"), "number"),
        (("pattern", "format", "minLength", "maxLength"), "string"),
    ):
        if any(key in schema for key in keys):
            return name
    return None


def choices(schema: Schema) -> list[Any]:
    """The only values allowed, where a schema lists them."""
    return [schema["const"]] if "const" in schema else items_of(schema.get("enum"))


def items_of(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def members_of(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def number_of(schema: Schema, key: str) -> float | None:
    value = schema.get(key)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return value if usable else None


def length_of(schema: Schema, key: str) -> int | None:
    """A length that a schema asks for; one beyond reason is cut, so that nothing huge is made."""
    value = number_of(schema, key)
    return None if value is None or value < 0 else min(int(value), 10_000)


def _follow(ref: str, root: Schema) -> Any:
    here: Any = root
    if not ref.startswith("#"):
        return {}
    for step in filter(None, ref[1:].split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        here = members_of(here).get(key)
    return here


def _merge_members(merged: Schema, member: Any) -> None:
    if not isinstance(member, dict):
        return
    part = cast("Schema", member)
    if isinstance(part.get("properties"), dict):
        merged["properties"] = {**members_of(merged.get("properties")), **part["properties"]}
    if isinstance(part.get("required"), list):
        merged["required"] = [*items_of(merged.get("required")), *part["required"]]


@dataclass(frozen=True)
class Slot:
    """One parameter of a tool."""

    name: str
    schema: Schema
    required: bool

    @cached_property
    def words(self) -> list[str]:
        return split(self.name)

    @cached_property
    def description(self) -> str:
        parts = (self.schema.get("title"), self.schema.get("description"))
        return " ".join(part for part in parts if isinstance(part, str))[:500]

    @cached_property
    def stems(self) -> frozenset[str]:
        return frozenset(stems(self.name))

    @property
    def type(self) -> str | None:
        return type_of(self.schema)


def slots_of(tool: Tool) -> list[Slot]:
    """The parameters of ``tool``, each with its schema resolved, in their order."""
    root = resolve(tool.input_schema, tool.input_schema)
    required = set(_names(root.get("required")))
    return [
        Slot(name, settled(schema, tool.input_schema), name in required)
        for name, schema in members_of(root.get("properties")).items()
    ]


def settled(schema: Any, root: Schema) -> Schema:
    """A schema with references followed and, where it has alternatives, its first one taken."""
    here = resolve(schema, root)
    for _ in range(8):
        options = branches(here)
        if not options:
            break
        rest = {k: v for k, v in here.items() if k not in ("anyOf", "oneOf", "$ref")}
        here = {**resolve(options[0], root), **rest}
    return here


def _names(value: Any) -> Iterable[str]:
    return (name for name in items_of(value) if isinstance(name, str))
