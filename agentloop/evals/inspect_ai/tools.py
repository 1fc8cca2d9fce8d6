"""Tools as Inspect offers them to its models."""

from __future__ import annotations

from typing import Any, cast

from inspect_ai.tool import ToolInfo, ToolParams
from mcp_types import Tool

from agentloop_providers._names import Fitted

_DEEPEST = 12
"""How deep references to definitions are followed; a schema may hold itself."""


def to_info(tool: Tool, names: Fitted) -> ToolInfo:
    """``tool`` as far as Inspect's schemas can say it; what the model gives is checked anyway."""
    schema = inlined(tool.input_schema)
    return ToolInfo(
        name=names.fit(tool.name),
        description=tool.description or tool.title or tool.name,
        parameters=ToolParams.model_validate(
            {
                "properties": schema.get("properties", {}),
                "required": schema.get("required", []),
                "additionalProperties": schema.get("additionalProperties", False),
            }
        ),
    )


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` in the words that Inspect knows: no references, ``anyOf`` for every choice."""
    definitions = cast("dict[str, Any]", schema.get("$defs", {}))
    return cast("dict[str, Any]", _inlined(schema, definitions, _DEEPEST))


def _inlined(value: Any, definitions: dict[str, Any], depth: int) -> Any:
    if isinstance(value, list):
        return [_inlined(item, definitions, depth) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    schema = cast("dict[str, Any]", value)
    reference = schema.get("$ref")
    if isinstance(reference, str):
        rest = {key: item for key, item in schema.items() if key != "$ref"}
        meant = definitions.get(reference.rpartition("/")[2], {}) if depth else {"type": "object"}
        return _inlined({**meant, **rest}, definitions, max(depth - 1, 0))
    made = {
        key: _inlined(item, definitions, depth)
        for key, item in schema.items()
        if key not in ("$defs", "const", "oneOf", "allOf")
    }
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if isinstance(schema.get("oneOf"), list):
        made["anyOf"] = _inlined(schema["oneOf"], definitions, depth)
    for part in schema.get("allOf", ()):
        made = {**_inlined(part, definitions, depth), **made}
    return made
