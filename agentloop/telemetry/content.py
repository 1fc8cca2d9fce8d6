"""What people and models said, in the JSON that the conventions have for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mcp_types import SamplingMessage, ToolResultContent, ToolUseContent

from agentloop.definition import Definition
from agentloop.meta import Reply
from agentloop.secret import hidden
from agentloop.transcript import Transcript


def of_definition(definition: Definition) -> dict[str, Any]:
    """For the span of a run."""
    if not definition.instructions:
        return {}
    said = [{"type": "text", "content": definition.instructions}]
    return {"gen_ai.system_instructions": _written(said)}


def of_ask(asked: Transcript, reply: Reply) -> dict[str, Any]:
    """For the span of an ask that sent the messages ``asked``."""
    content = reply.content if isinstance(reply.content, list) else [reply.content]
    answer: dict[str, Any] = {"role": reply.role, "parts": [_part(block) for block in content]}
    if reply.stop_reason:
        answer["finish_reason"] = reply.stop_reason
    return {
        "gen_ai.input.messages": _written([_message(message) for message in asked]),
        "gen_ai.output.messages": _written([answer]),
    }


def of_call(call: ToolUseContent, result: ToolResultContent) -> dict[str, Any]:
    """For the span of a tool call."""
    return {
        "gen_ai.tool.call.arguments": _written(call.input),
        "gen_ai.tool.call.result": _written(_result(result)),
    }


def _message(message: SamplingMessage) -> dict[str, Any]:
    blocks: Sequence[Any] = message.content_as_list
    results = any(block.type == "tool_result" for block in blocks)
    return {
        "role": "tool" if results else message.role,
        "parts": [_part(block) for block in blocks],
    }


def _part(block: Any) -> dict[str, Any]:
    if block.type == "text":
        return {"type": "text", "content": block.text}
    if block.type == "tool_use":
        return {
            "type": "tool_call",
            "id": block.id,
            "name": block.name,
            "arguments": block.input,
        }
    if block.type == "tool_result":
        return {"type": "tool_call_response", "id": block.tool_use_id, "response": _result(block)}
    return _media(block)


def _result(result: ToolResultContent) -> Any:
    texts = [block.text if block.type == "text" else _media(block) for block in result.content]
    return texts[0] if len(texts) == 1 else texts


def _media(block: Any) -> dict[str, Any]:
    """What kind of thing it is: a span is no place for a picture."""
    return {"type": block.type, "mime_type": getattr(block, "mime_type", None)}


def _written(value: Any) -> str:
    return json.dumps(hidden(value), ensure_ascii=False, default=str)
