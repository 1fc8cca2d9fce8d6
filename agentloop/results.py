"""From what a tool returns to what the model sees: the kind is kept, the size is bounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    ToolResultContent,
)
from pydantic_core import PydanticSerializationError, to_json

from agentloop.text import clean, cut

DEFAULT_MAX_BYTES = 16 * 1024
"""Text of one result, in bytes; the head and the tail of a longer one are kept."""

MAX_MEDIA_BYTES = 5 * 1024 * 1024
"""An image, an audio clip or an embedded file, as base64."""

MAX_BLOCKS = 64
"""Content blocks of one result."""

_BLOCKS = (TextContent, ImageContent, AudioContent, ResourceLink, EmbeddedResource)


def to_result(id: str, value: Any, *, max_bytes: int = DEFAULT_MAX_BYTES) -> ToolResultContent:
    """The result of the tool use ``id`` from what its tool returned.

    Text stays text, content blocks stay what they are, a ``CallToolResult`` keeps its error flag
    and its structured content, and everything else becomes JSON. Raises ``ValueError`` where there
    is no JSON for it.
    """
    if isinstance(value, ToolResultContent):
        return value.model_copy(update={"tool_use_id": id})
    structured, is_error = None, None
    content: list[ContentBlock]
    if isinstance(value, CallToolResult):
        content, is_error = list(value.content), value.is_error or None
        structured = _structured(value, max_bytes)
        if not content and value.structured_content is not None:
            content = [TextContent(text=_json(value.structured_content))]
    elif isinstance(value, _BLOCKS):
        content = [value]
    elif isinstance(value, list | tuple) and value and all(isinstance(v, _BLOCKS) for v in value):  # pyright: ignore[reportUnknownVariableType]
        content = list(cast("Sequence[ContentBlock]", value))
    elif isinstance(value, str):
        content = [TextContent(text=value)] if value else []
    else:
        content = [TextContent(text=_json(value))]
    return ToolResultContent(
        tool_use_id=id,
        content=_bounded(content, max_bytes),
        structured_content=structured,
        is_error=is_error,
    )


def error_result(id: str, text: str) -> ToolResultContent:
    """A result that tells the model what went wrong."""
    return ToolResultContent(
        tool_use_id=id, content=[TextContent(text=clean(cut(text, 4096)))], is_error=True
    )


def _json(value: Any) -> str:
    try:
        return to_json(value, inf_nan_mode="constants", bytes_mode="base64").decode()
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise ValueError(f"a {type(value).__name__} that has no JSON form") from error


def _structured(value: CallToolResult, max_bytes: int) -> dict[str, Any] | None:
    """Structured content, where it says something that the text does not, and fits."""
    data = value.structured_content
    if not isinstance(data, dict) or not value.content:
        return None
    written = _json(data)
    said = any(block.type == "text" and _same(block.text, data) for block in value.content)
    return None if said or len(written) > max_bytes else cast("dict[str, Any]", data)


def _same(text: str, data: Any) -> bool:
    """Whether ``data`` says no more than ``text``; hosts wrap plain values as ``result``."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    return data in (said, {"result": said}, {"result": text})


def _bounded(content: list[ContentBlock], max_bytes: int) -> list[ContentBlock]:
    left = len(content) - MAX_BLOCKS
    if left > 0:
        content = [
            *content[:MAX_BLOCKS],
            TextContent(text=f"[... {left} more blocks left out ...]"),
        ]
    bounded: list[ContentBlock] = []
    room = max_bytes
    for block in content:
        if block.type == "text":
            text = clean(cut(block.text, room))
            room = max(room - len(text.encode()), 64)
            bounded.append(block if text is block.text else block.model_copy(update={"text": text}))
        else:
            bounded.append(_bounded_media(block, max_bytes))
    return bounded


def _bounded_media(block: Any, max_bytes: int) -> ContentBlock:
    if block.type in ("image", "audio"):
        size, what = len(block.data), f"{block.type} ({clean(block.mime_type)})"
    elif block.type == "resource":
        resource = block.resource
        if hasattr(resource, "text"):
            text = clean(cut(resource.text, max_bytes))
            if text is resource.text:
                return block
            return block.model_copy(update={"resource": resource.model_copy(update={"text": text})})
        size, what = len(resource.blob), f"resource {clean(str(resource.uri))}"
    else:
        return block
    if size <= MAX_MEDIA_BYTES:
        return block
    return TextContent(text=f"[{what} of {size} bytes left out: it is over {MAX_MEDIA_BYTES}]")
