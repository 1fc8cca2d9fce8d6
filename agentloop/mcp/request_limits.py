"""What a client takes of a server that asks its model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mcp_types import CreateMessageRequestParams

from agentloop.intake import size_of
from agentloop.text import too_deep


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """How much one sampling request may be. A server's transcript grows with each step."""

    messages: int = 1000
    blocks: int = 100_000
    """Content blocks of all messages, those of tool results included."""
    bytes: int = 64 * 1024 * 1024
    """Text, arguments and data of all messages and tools."""
    depth: int = 80
    """How deep arguments, structured content and schemas may nest."""
    tools: int = 256
    max_tokens: int | None = None
    """What a server may ask for in one reply; None takes what it says."""

    def excess(self, request: CreateMessageRequestParams) -> str | None:
        """Which limit ``request`` is beyond, in words for the server; None where it is within."""
        tools = request.tools or []
        counted = (
            (len(request.messages), self.messages, "messages"),
            (len(tools), self.tools, "tools"),
            (request.max_tokens, self.max_tokens, "tokens to be written"),
        )
        for count, limit, what in counted:
            if limit is not None and count > limit:
                return f"the request has {count} {what}, and this client takes {limit}"
        blocks = size = 0
        for message in request.messages:
            for block in _all_blocks(message.content_as_list):
                blocks += 1
                if blocks > self.blocks:
                    return f"the request has more than {self.blocks} content blocks"
                if too_deep(data := _data(block), self.depth):
                    return f"a content block nests deeper than {self.depth} levels"
                size += size_of(data)
        for tool in tools:
            if too_deep(tool.input_schema, self.depth):
                return f"a tool's schema nests deeper than {self.depth} levels"
            size += size_of([tool.name, tool.description, tool.input_schema])
        size += size_of(request.system_prompt)
        if size > self.bytes:
            return f"the request takes {size} bytes, and this client takes {self.bytes}"
        return None


def _all_blocks(blocks: Iterable[Any]) -> Iterable[Any]:
    for block in blocks:
        yield block
        if block.type == "tool_result":
            yield from block.content


_INSIDE = ("text", "data", "mime_type", "input", "name", "id", "structured_content", "meta")


def _data(block: Any) -> list[Any]:
    """What a block holds, but for the blocks inside of it."""
    held: dict[str, Any] = block.__dict__  # a model takes long to say that it has no such attribute
    values = [held.get(name) for name in _INSIDE]
    if (resource := held.get("resource")) is not None:
        parts: dict[str, Any] = resource.__dict__
        values += [parts.get(name) for name in ("uri", "text", "blob")]
    return [value for value in values if value is not None]
