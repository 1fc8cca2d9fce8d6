"""Requests for tests of providers, and what comes back."""

from __future__ import annotations

from typing import Any

from mcp_types import (
    ContentBlock,
    CreateMessageRequestParams,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    Tool,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.meta import PROVIDER_KEY, Reply
from agentloop.testing.backend import described
from agentloop.transcript import Transcript

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQAB"
    "XvMqOgAAAABJRU5ErkJggg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="


def user(*content: str | SamplingMessageContentBlock) -> SamplingMessage:
    """A message of the user."""
    blocks = [TextContent(text=item) if isinstance(item, str) else item for item in content]
    return SamplingMessage(role="user", content=blocks)


def offer(*names: str) -> list[Tool]:
    """Tools of these names, described as backends know them."""
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return [Tool(name=name, description=described(name), input_schema=schema) for name in names]


def ask(*messages: SamplingMessage, **more: Any) -> CreateMessageRequestParams:
    """A request with these messages."""
    fields: dict[str, Any] = {"max_tokens": 1000, **more}
    return CreateMessageRequestParams(messages=list(messages), **fields)


def blocks_of(reply: Reply) -> list[SamplingMessageContentBlock]:
    """The content of a reply."""
    return reply.content if isinstance(reply.content, list) else [reply.content]


def uses_of(reply: Reply) -> list[ToolUseContent]:
    """The tool uses in a reply."""
    return [block for block in blocks_of(reply) if block.type == "tool_use"]


def kept(reply: Reply) -> SamplingMessage:
    """The message that a run makes of a reply, after its way over a wire and back."""
    state = (reply.meta or {}).get(PROVIDER_KEY)
    meta = None if state is None else {PROVIDER_KEY: state}
    message = SamplingMessage(role="assistant", content=blocks_of(reply), _meta=meta)
    return Transcript.from_json(Transcript([message]).to_json())[0]


def results(
    reply: Reply, *content: ContentBlock, error: bool = False, structured: Any = None
) -> SamplingMessage:
    """The message that answers every tool use of a reply with ``content``."""
    return user(
        *[
            ToolResultContent(
                tool_use_id=use.id,
                content=list(content),
                structured_content=structured,
                is_error=error or None,
            )
            for use in uses_of(reply)
        ]
    )
