"""Typed answers: offered to the model as one more tool, so that every carrier can bring them."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any, cast

from mcp_types import Tool
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from agentloop.errors import DefinitionError
from agentloop.text import clean_json

ANSWER_TOOL = "final_answer"
"""The tool that carries a typed answer."""

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


class QuietSchema(GenerateJsonSchema):
    """Schemas that leave out a default that has no JSON form, without a warning."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        pass


class OutputInvalid(ValueError):
    """An answer does not fit the output type; the message tells the model what to mend."""


class Output:
    """An output type: the tool that carries it, and the check that an answer must pass."""

    def __init__(self, type_: Any) -> None:
        """Raises :class:`DefinitionError` where ``type_`` has no JSON schema."""
        self.type = type_
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(type_)
            schema = self._adapter.json_schema(schema_generator=QuietSchema)
        except (PydanticInvalidForJsonSchema, PydanticUserError) as error:
            raise DefinitionError(f"output={type_!r} has no JSON schema: {error}") from error
        self._wrapped = not _is_object(schema)
        self.schema: dict[str, Any] = _wrap(schema) if self._wrapped else _inline_root(schema)

    @cached_property
    def tool(self) -> Tool:
        """The tool by which the model answers."""
        return Tool(
            name=ANSWER_TOOL,
            description=(
                "Give your final answer. Call this once, when you know the answer; "
                "plain text is not taken as an answer."
            ),
            input_schema=self.schema,
        )

    def check(self, arguments: dict[str, Any]) -> Any:
        """The answer in ``arguments`` as JSON. Raises :class:`OutputInvalid`."""
        value = self.value(arguments)
        try:
            answer = self._adapter.dump_python(value, mode="json", by_alias=True)
            json.dumps(answer, allow_nan=False)
            self.revive(answer)
        except (ValueError, TypeError) as error:
            raise OutputInvalid(f"the answer has no JSON form: {type(error).__name__}") from error
        return clean_json(answer)

    def value(self, arguments: dict[str, Any]) -> Any:
        """The answer in ``arguments`` as an instance of the type. Raises :class:`OutputInvalid`."""
        if self._wrapped:
            if "result" not in arguments:
                raise OutputInvalid('result: required, e.g. {"result": ...}')
            raw: Any = arguments["result"]
        else:
            raw = arguments
        try:
            return self._adapter.validate_python(raw, by_alias=True, by_name=True)
        except ValidationError as error:
            raise OutputInvalid(explain(error, raw)) from error
        except Exception as error:  # a validator of the author's failed
            raise OutputInvalid(f"it cannot be checked: {type(error).__name__}") from error

    def revive(self, answer: Any) -> Any:
        """The typed value of an answer that :meth:`check` gave."""
        return self._adapter.validate_python(answer, by_alias=True, by_name=True)

    def find(self, text: str) -> Any:
        """The answer that stands in ``text`` as JSON, bare or fenced.

        Raises :class:`OutputInvalid` where there is none.
        """
        why = ""
        for candidate in (text, *_FENCE.findall(text)):
            try:
                data: Any = json.loads(candidate)
            except (ValueError, RecursionError):
                continue
            bare = not (isinstance(data, dict) and "result" in data)
            try:
                if self._wrapped and bare:
                    return self.check({"result": data})
                if isinstance(data, dict):
                    return self.check(cast("dict[str, Any]", data))
            except OutputInvalid as error:
                why = f"; the JSON in the words does not fit: {error}"
        raise OutputInvalid(f"no answer was given: call {ANSWER_TOOL}{why}")


def explain(error: ValidationError, given: Any) -> str:
    """What is wrong with ``given``, field by field: where, what was expected, what came."""
    lines: list[str] = []
    for item in error.errors(include_url=False, include_context=False)[:8]:
        where = ".".join(str(part) for part in item["loc"]) or "the whole"
        came = "" if item["type"] == "missing" else f" (got {_short(item['input'])})"
        lines.append(f"{where}: {item['msg']}{came}")
    if error.error_count() > len(lines):
        lines.append(f"and {error.error_count() - len(lines)} more")
    return "; ".join(lines)


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def _is_object(schema: dict[str, Any]) -> bool:
    return _inline_root(schema).get("type") == "object"


def _wrap(schema: dict[str, Any]) -> dict[str, Any]:
    """An object schema around ``schema``; MCP wants ``type: object`` at the root."""
    definitions = schema.pop("$defs", None)
    wrapped: dict[str, Any] = {
        "type": "object",
        "properties": {"result": schema},
        "required": ["result"],
    }
    return wrapped | ({"$defs": definitions} if definitions else {})


def _inline_root(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` with a root that is a bare ``$ref`` replaced by what it refers to."""
    ref = schema.get("$ref")
    if not isinstance(ref, str):
        return schema
    name = ref.removeprefix("#/$defs/")
    rest = {k: v for k, v in schema.items() if k != "$ref"}
    return {**schema["$defs"][name], **rest}
