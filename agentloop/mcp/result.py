"""A run's result as the result of an MCP tool."""

from __future__ import annotations

import json
from typing import Any

from mcp_types import CallToolResult, ContentBlock, TextContent

from agentloop.result import RunResult
from agentloop.run import Stop

RESULT_KEY = "dev.agentloop/result"
"""On the result of a mounted agent's tool call: how the run ended and what it used."""


RESUME = "The handle that an earlier answer gave, to go on from there."
"""Says what the argument ``resume`` of a mounted agent is for."""


def to_tool_result(result: RunResult[Any]) -> CallToolResult:
    """What a client gets of a run: the answer, and how it came about under ``_meta``.

    A run that ended without an answer is an error result that says why and keeps the last words.
    """
    data = result.to_json()
    answer = data["output"]
    told = ("stop", "steps", "tool_calls", "usage", "run_id", "handle")
    story = {key: data[key] for key in told if key in data}
    lost = answer is None or result.stop in (Stop.FAILED, Stop.DENIED, Stop.REFUSED)
    if lost:
        words = [result.story(), result.text]
        content: list[ContentBlock] = [TextContent(text=text) for text in words if text]
        content += _how_to_go_on(result)
        return CallToolResult(content=content, is_error=True, _meta={RESULT_KEY: story})
    text = answer if isinstance(answer, str) else _written(answer)
    return CallToolResult(
        content=[TextContent(text=text), *_how_to_go_on(result)],
        structured_content=answer if isinstance(answer, dict) else {"result": answer},
        _meta={RESULT_KEY: story},
    )


def _how_to_go_on(result: RunResult[Any]) -> list[ContentBlock]:
    if result.handle is None:
        return []
    text = (
        f"This may not be all: the run ended on its limit of {result.stop}. To let it go on, call "
        f"this tool again with resume={result.handle!r}."
    )
    return [TextContent(text=text)]


def _written(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False, indent=2)
