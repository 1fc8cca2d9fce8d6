"""From what a tool returns to what the model sees: the kind is kept, the size is bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    ToolResultContent,
)
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from agentloop.secret import hidden_from_model
from agentloop.text import clean, clean_json, clean_meta, cut
from agentloop.transcript import remade

DEFAULT_MAX_BYTES = 16 * 1024
"""Text of one result, in bytes; the head and the tail of a longer one are kept."""

MAX_MEDIA_BYTES = 5 * 1024 * 1024
"""An image, an audio clip or an embedded file, as base64."""

DEFAULT_MAX_MEDIA_BYTES = 10 * 1024 * 1024
"""All that one result holds beside its text: media as base64, and what is said about blocks."""

MAX_BLOCKS = 64
"""Content blocks of one result."""

MAX_FIELD_BYTES = 2048
"""A name, a description or an address in a block."""

_CONTENT_FIELDS = frozenset({"text", "data", "blob"})

_BLOCKS = (TextContent, ImageContent, AudioContent, ResourceLink, EmbeddedResource)
_CONTENT = (CallToolResult, ToolResultContent, *_BLOCKS)

_TEXT = TextContent(text="")
_RESULT = ToolResultContent(tool_use_id="", content=[])


class NotWritable(ValueError):
    """A tool gave something that has no JSON form; the message may be shown to the model."""


def to_result(
    id: str,
    value: Any,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_media_bytes: int = DEFAULT_MAX_MEDIA_BYTES,
) -> ToolResultContent:
    """The result of the tool use ``id`` from what its tool returned.

    Text stays text, content blocks stay what they are, a ``CallToolResult`` keeps its error flag
    and its structured content, and everything else becomes JSON. Raises :class:`NotWritable`
    where there is no JSON for it.
    """
    text = _text(value)
    if text is not None and len(text) * 4 <= max_bytes:  # a short text: nothing to bound
        content = [remade(_TEXT, text=_safe(text))] if text else []
        return remade(_RESULT, tool_use_id=id, content=content)
    structured, is_error, meta = None, None, None
    content: list[ContentBlock]
    if text is not None:
        content = [TextContent(text=text)]
    elif isinstance(value, CallToolResult | ToolResultContent):
        meta = _small(value.meta, max_bytes) if isinstance(value, ToolResultContent) else None
        content, is_error = list(value.content), value.is_error or None
        structured = _structured(value, max_bytes)
        if not content and value.structured_content is not None:
            content = [TextContent(text=_json(value.structured_content))]
    else:
        content = [value] if isinstance(value, _BLOCKS) else list(value)
    return ToolResultContent(
        tool_use_id=id,
        content=_bounded(content, max_bytes, max_media_bytes),
        structured_content=structured,
        is_error=is_error,
        _meta=hidden_from_model(meta),
    )


def _text(value: Any) -> str | None:
    """What a tool returned as text, or as JSON; None for what is content already."""
    if isinstance(value, str):
        return value
    if isinstance(value, _CONTENT):
        return None
    if isinstance(value, list | tuple) and value and all(isinstance(v, _BLOCKS) for v in value):  # pyright: ignore[reportUnknownVariableType]
        return None
    return _json(value)


def error_result(id: str, text: str) -> ToolResultContent:
    """A result that tells the model what went wrong."""
    return ToolResultContent(
        tool_use_id=id, content=[TextContent(text=cut(_safe(text), 4096))], is_error=True
    )


def _safe(text: str) -> str:
    """``text`` as a wire takes it, without what is to be kept from the model."""
    return hidden_from_model(clean(text))


def _json(value: Any) -> str:
    if isinstance(value, Iterator | AsyncIterator):  # it may be endless
        kind = type(cast("object", value)).__name__
        raise NotWritable(f"The tool gave a {kind}, not its items: a list is wanted.")
    try:
        try:
            return to_json(value, inf_nan_mode="constants", bytes_mode="base64").decode()
        except PydanticSerializationError:  # it may be no more than a lone surrogate
            return to_json(clean_json(_plain(value)), inf_nan_mode="constants").decode()
    except (ValueError, RecursionError) as error:
        kind = type(value).__name__
        raise NotWritable(f"The tool gave a {kind} that has no JSON form.") from error


def _plain(value: Any) -> Any:
    try:
        return to_jsonable_python(value, inf_nan_mode="constants", bytes_mode="base64")
    except UnicodeEncodeError:  # in the key of a dict
        return value


def _structured(value: CallToolResult | ToolResultContent, max_bytes: int) -> dict[str, Any] | None:
    """Structured content, where it says something that the text does not, and fits."""
    data = value.structured_content
    if not isinstance(data, dict) or not value.content:
        return None
    written = _json(data)
    said = any(block.type == "text" and _same(block.text, data) for block in value.content)
    return None if said or len(written) > max_bytes else hidden_from_model(clean_json(data))


def _same(text: str, data: Any) -> bool:
    """Whether ``data`` says no more than ``text``; hosts wrap plain values as ``result``."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    return data in (said, {"result": said}, {"result": text})


def _small(meta: dict[str, Any] | None, max_bytes: int) -> dict[str, Any] | None:
    return clean_meta(meta) if meta and len(_json(meta)) <= max_bytes else None


def _bounded(
    content: list[ContentBlock], max_bytes: int, max_media_bytes: int
) -> list[ContentBlock]:
    kept: list[ContentBlock] = [_clean(block) for block in content[:MAX_BLOCKS]]
    left_out = len(content) - len(kept)
    if sum(_text_size(block) for block in kept) > max_bytes:
        whole, room = kept, max_bytes - _NOTICE_ROOM
        kept = []
        for block in whole:
            size = _text_size(block)
            if size > room < _NOTICE_ROOM:
                left_out += 1
                continue
            kept.append(_cut(block, room) if size > room else block)
            room -= min(size, room)
    kept = _in_all([_without_excess(block) for block in kept], max_media_bytes)
    if left_out:
        kept.append(TextContent(text=f"[... {left_out} more blocks left out ...]"))
    return kept


def _in_all(content: list[ContentBlock], most: int) -> list[ContentBlock]:
    """``content`` without the blocks that take it over ``most`` bytes, and a notice about them."""
    kept: list[ContentBlock] = []
    taken, left_out = 0, list[int]()
    for block in content:
        size = _weight(block)
        if taken + size <= most:
            kept.append(block)
            taken += size
        else:
            left_out.append(size)
    if left_out:
        text = (
            f"[{len(left_out)} more of {len(content)} blocks, {sum(left_out)} bytes, left out: a "
            f"result of this tool holds at most {most} bytes of media. Ask for fewer at a time, "
            "or for smaller ones.]"
        )
        kept.append(TextContent(text=text))
    return kept


def _weight(block: ContentBlock) -> int:
    """Bytes that ``block`` takes beside its text."""
    if block.type == "text" and not block.meta and not block.annotations:
        return 0
    about = block.model_dump_json(by_alias=True, exclude_none=True, exclude=_HELD)
    return len(about) + (_media(block) or ("", 0))[1]


_HELD: Any = {"text": True, "data": True, "resource": {"text", "blob"}}
"""What is counted by itself."""

_NOTICE_ROOM = 80
"""Bytes that any notice about what was left out fits into."""


def _text_of(block: ContentBlock) -> str:
    if block.type == "text":
        return block.text
    if block.type == "resource" and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    return ""


def _text_size(block: ContentBlock) -> int:
    return len(_text_of(block).encode())


def _cut(block: ContentBlock, room: int) -> ContentBlock:
    text = cut(_text_of(block), room)
    if block.type == "resource":
        resource = block.resource.model_copy(update={"text": text})
        return block.model_copy(update={"resource": resource})
    return block.model_copy(update={"text": text})


def _clean(item: Any) -> Any:
    """A copy of a block, or of what is embedded in it, with clean and, but for its content, bounded
    strings. The tool may keep its own and change it: the history says what it gave."""
    changes: dict[str, Any] = {}
    for name, value in item.__dict__.items():
        if isinstance(value, str):
            fine = _safe(value)
            if name not in _CONTENT_FIELDS:
                fine = cut(fine, MAX_FIELD_BYTES)
        elif name == "resource":
            fine = _clean(value)
        elif name == "meta" and value:
            fine = hidden_from_model(clean_meta(value))
        else:
            continue
        if fine is not value:
            changes[name] = fine
    return item.model_copy(update=changes)


def _without_excess(block: ContentBlock) -> ContentBlock:
    """``block``, or a notice in its place if what it holds in base64 is too much."""
    what, size = _media(block) or ("", 0)
    if size <= MAX_MEDIA_BYTES:
        return block
    return TextContent(text=f"[{what} of {size} bytes left out: it is over {MAX_MEDIA_BYTES}]")


def _media(block: ContentBlock) -> tuple[str, int] | None:
    """What ``block`` holds in base64, and how many bytes of it."""
    if block.type == "image" or block.type == "audio":
        return f"{block.type} ({block.mime_type})", len(block.data)
    if block.type == "resource" and isinstance(block.resource, BlobResourceContents):
        return f"resource {block.resource.uri}", len(block.resource.blob)
    return None
