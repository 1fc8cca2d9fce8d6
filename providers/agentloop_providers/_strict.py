"""The typed answer, held to its schema by the API itself.

The tool that carries an answer stays a tool on every carrier and in every transcript. Where an API
can make a model keep to a schema, it is asked to: strict tools, or a response format whose text is
read as the tool use that it stands for. Only a subset of JSON Schema can be kept to; a schema that
is not in it is offered as it always was, and what a subset has no word for is checked afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from mcp_types import CreateMessageRequestParams, Tool

from agentloop.output import ANSWER_TOOL
from agentloop_providers._content import choice_of, tools_of
from agentloop_providers._json import read

Schema = dict[str, Any]


class Held(NamedTuple):
    """An answer whose schema the API is to hold."""

    schema: Schema
    """The schema in the subset: whatever fits it fits the answer's own shape."""
    alone: bool
    """Whether nothing but the answer may come back."""
    id: str
    """The id of the tool use that an answer in words stands for."""
    key: str
    """Tells this schema from others."""


def held(request: CreateMessageRequestParams, *, limits: bool) -> Held | None:
    """How the API is to hold the answer that ``request`` asks for; None where it cannot.

    For ``limits`` see :func:`strict_schema`.
    """
    tools = request.tools or []
    tool = next((tool for tool in tools if tool.name == ANSWER_TOOL), None)
    if tool is None:
        return None
    try:
        key = json.dumps(tool.input_schema)
    except (TypeError, ValueError, RecursionError):
        return None
    schema = _strict_form(key, limits)
    if schema is None:
        return None
    alone = len(tools) == 1 and choice_of(request) == "required"
    # The same whenever the reply is read, and no other's in the conversation.
    return Held(schema, alone, f"answer-{len(request.messages)}", key)


def offered(
    request: CreateMessageRequestParams, answer: Held | None
) -> Iterator[tuple[Tool, Schema, bool]]:
    """The tools of a request, each with its schema, and whether the API is to hold it.

    It holds the ``answer`` alone: MCP's schemas may be any, and APIs hold only so many.
    """
    for tool in tools_of(request):
        if answer and tool.name == ANSWER_TOOL:
            yield tool, answer.schema, True
        else:
            yield tool, tool.input_schema, False


def answer_in(text: object) -> dict[str, Any] | None:
    """The arguments of the answer that ``text`` is; None where it is none, but words."""
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        return cast("dict[str, Any]", read(text))
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _strict_form(text: str, limits: bool) -> Schema | None:
    return strict_schema(json.loads(text), limits=limits)


def strict_schema(schema: Schema, *, limits: bool) -> Schema | None:
    """``schema`` in the subset that every API can hold a model to; None where it has no place.

    In the subset, objects hold exactly the properties that are named, all of them. So a property
    that may be left out is asked for where that costs nothing: where it may be null, or empty, or
    has a default. Patterns and lengths of text are not held, nor are limits of numbers and lists
    without ``limits``: they are told to the model in the description. The answer is checked against
    the real schema in any case.
    """
    try:
        return _Form(schema, limits=limits).root()
    except (_Unfit, RecursionError, TypeError, AttributeError):  # clients send what they like
        return None


class _Unfit(Exception):
    """The schema is not in the subset."""


_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)

_LIMITS = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems"),
    }
)
"""What some APIs hold a model to, and others do not."""

_TOLD = _LIMITS | {
    *("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"),
    *("uniqueItems", "default", "examples"),
}
"""What is said in the description where it is not held."""

_SILENT = frozenset({"title", "deprecated", "discriminator", "$schema", "$comment", "$defs"})
"""What is left out: it says nothing of the shape, or is said elsewhere."""


class _Form:
    """The strict form of one schema."""

    def __init__(self, schema: Schema, *, limits: bool) -> None:
        self._schema = schema
        self._limits = _LIMITS if limits else frozenset[str]()
        self._definitions: Schema = schema.get("$defs", {})
        self._formed: dict[str, Schema] = {}
        self._open: set[str] = set()

    def root(self) -> Schema:
        if self._schema.get("type") != "object":
            raise _Unfit
        formed = self._form(self._schema)
        return formed | ({"$defs": self._formed} if self._formed else {})

    def _form(self, given: Any) -> Schema:
        if not isinstance(given, dict):
            raise _Unfit  # true stands for anything
        schema = cast("Schema", given)
        if "$ref" in schema:
            return self._reference(schema)
        formed: Schema = {}
        if "enum" in schema or "const" in schema:
            formed |= _values(schema)
        elif "anyOf" in schema or "oneOf" in schema:
            formed["anyOf"] = [self._form(one) for one in _list(schema, "anyOf", "oneOf")]
        else:
            formed |= self._typed(schema)
        told = {key: schema[key] for key in schema if key in _TOLD and key not in formed}
        if schema.keys() - formed.keys() - told.keys() - _SILENT - {"description", "oneOf", "type"}:
            raise _Unfit  # what is left would be lost, and it says more than a limit does
        return formed | _described(schema.get("description"), told)

    def _typed(self, schema: Schema) -> Schema:
        kind = schema.get("type")
        kinds = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
        if not kinds or not all(isinstance(one, str) and one in _TYPES for one in kinds):
            raise _Unfit
        formed: Schema = {"type": kind}
        if "object" in kinds:
            formed |= self._object(schema)
        if "array" in kinds:
            formed["items"] = self._form(schema.get("items"))
        if "string" in kinds and schema.get("format") in _FORMATS:
            formed["format"] = schema["format"]
        return formed | {key: schema[key] for key in schema if key in self._limits}

    def _object(self, schema: Schema) -> Schema:
        properties = schema.get("properties")
        # Properties of any name are no shape; where the schema is silent on them they may go.
        if not isinstance(properties, dict) or schema.get("additionalProperties") not in (
            None,
            False,
        ):
            raise _Unfit
        required = schema.get("required", [])
        formed: Schema = {}
        for name, value in cast("Schema", properties).items():
            if name not in required and not self._costs_nothing(value):
                raise _Unfit
            formed[name] = self._form(value)
        return {"properties": formed, "required": list(formed), "additionalProperties": False}

    def _costs_nothing(self, given: Any) -> bool:
        """Whether a property that may be left out may as well be asked for."""
        schema = cast("Schema", given) if isinstance(given, dict) else {}
        kinds: list[Any] = [schema, *schema.get("anyOf", ())]
        return "default" in schema or any(kind.get("type") in ("null", "array") for kind in kinds)

    def _reference(self, schema: Schema) -> Schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        if name in self._open or name not in self._definitions:
            raise _Unfit  # one that holds itself, or is elsewhere
        if name not in self._formed:
            self._open.add(name)
            formed = self._form(self._definitions[name])
            self._open.discard(name)
            self._formed[name] = formed
        beside = {key: schema[key] for key in schema if key != "$ref" and key not in _SILENT}
        if not beside:
            return {"$ref": schema["$ref"]}
        if beside.keys() - _TOLD - {"description"}:
            raise _Unfit
        said = beside.pop("description", self._formed[name].get("description"))
        return self._formed[name] | _described(said, beside)  # nothing may stand beside a $ref


def _values(schema: Schema) -> Schema:
    """The values that are allowed, as far as they are plain ones."""
    formed: Schema = {key: schema[key] for key in ("type", "enum", "const") if key in schema}
    values = [*_list(schema, "enum"), *([schema["const"]] if "const" in schema else [])]
    if not values or not all(isinstance(v, str | int | float | None) for v in values):
        raise _Unfit
    return formed


def _list(schema: Schema, *names: str) -> list[Any]:
    """The first of these fields that there is; all have to be lists."""
    value: object = next((schema[name] for name in names if name in schema), ())
    if not isinstance(value, list | tuple):
        raise _Unfit
    return list(cast("Sequence[Any]", value))


def _described(description: Any, told: Schema) -> Schema:
    words = [description] if isinstance(description, str) else []
    limits = ", ".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in told.items()
        if not (key == "default" and value is None)
    )
    if limits:
        words.append(f"({limits})")
    return {"description": " ".join(words)} if words else {}
