"""What messages and tool results hold, as far as every model API sees it alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CreateMessageRequestParams,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    Tool,
    ToolResultContent,
)

from agentloop.errors import BadRequestError

Part = TextContent | ImageContent | AudioContent


class Turn(NamedTuple):
    """A user message: the tool results in it, and the rest."""

    results: list[ToolResultContent]
    parts: list[Part]


def turn(message: SamplingMessage) -> Turn:
    """The user message taken apart. Raises :class:`BadRequestError` for blocks of the model's."""
    results: list[ToolResultContent] = []
    parts: list[Part] = []
    for block in message.content_as_list:
        if block.type == "tool_result":
            results.append(block)
        elif block.type == "tool_use":
            raise BadRequestError("a user message holds a tool_use block")
        elif block.type != "text" or block.text.strip():  # APIs refuse blank text
            parts.append(block)
    return Turn(results, parts)


def result_parts(result: ToolResultContent) -> list[Part]:
    """What a tool gave: text, images and audio. Resources and structured content become text."""
    parts: list[Part] = []
    for block in result.content:
        if isinstance(block, ResourceLink):
            parts.append(TextContent(text=_link(block)))
        elif isinstance(block, EmbeddedResource):
            parts.append(_embedded(block))
        elif block.type != "text" or block.text.strip():
            parts.append(block)
    if result.structured_content is not None and not _says(parts, result.structured_content):
        parts.append(TextContent(text=json.dumps(result.structured_content, ensure_ascii=False)))
    return parts


def flat_text(result: ToolResultContent, parts: Sequence[Part]) -> str:
    """The texts of a result as one, for APIs whose tool messages hold nothing else.

    They have no error flag either, so an error says that it is one.
    """
    text = "\n".join(part.text for part in parts if part.type == "text")
    return f"Error: {text}" if result.is_error else text


def left_out(part: ImageContent | AudioContent) -> TextContent:
    """What the model is told of a part of a tool result that its API has no place for."""
    what = f"{part.type} ({part.mime_type}, {len(part.data) * 3 // 4} bytes)"
    return TextContent(text=f"[{what} left out: this model cannot be shown it]")


def no_place(part: Any, where: str) -> BadRequestError:
    """The error for a part of a message that an API has no place for."""
    kind = f"{part.type} ({part.mime_type})" if hasattr(part, "mime_type") else str(part.type)
    return BadRequestError(f"{where} takes no {kind} here")


def data_url(part: ImageContent | AudioContent) -> str:
    return f"data:{part.mime_type};base64,{part.data}"


def audio_format(part: AudioContent) -> str | None:
    """What Chat Completions calls the format; None for what it does not take."""
    kind = part.mime_type.removeprefix("audio/")
    return {"wav": "wav", "x-wav": "wav", "wave": "wav", "mpeg": "mp3", "mp3": "mp3"}.get(kind)


def tools_of(request: CreateMessageRequestParams) -> list[Tool]:
    """The tools in the order of their names: prompt caches break where the order changes."""
    return sorted(request.tools or (), key=lambda tool: tool.name)


def choice_of(request: CreateMessageRequestParams) -> str | None:
    """``auto``, ``required`` or ``none`` where the request chooses and has tools."""
    return request.tool_choice.mode if request.tool_choice and request.tools else None


def cut_off(blocks: list[SamplingMessageContentBlock], stops: Sequence[str]) -> bool:
    """Cut ``blocks`` where the first of ``stops`` begins, for APIs that do not; whether one did."""
    for number, block in enumerate(blocks):
        if block.type != "text":
            continue
        found = [at for stop in stops if stop and (at := block.text.find(stop)) >= 0]
        if found:
            blocks[number:] = [TextContent(text=block.text[: min(found)])]
            return True
    return False


def _link(link: ResourceLink) -> str:
    said = [link.title or link.name, link.description, link.mime_type]
    return f"[resource {link.uri}: {', '.join(text for text in said if text)}]"


def _embedded(block: EmbeddedResource) -> Part:
    resource = block.resource
    if not isinstance(resource, BlobResourceContents):
        return TextContent(text=f"[resource {resource.uri}]\n{resource.text}")
    mime = resource.mime_type or "application/octet-stream"
    if mime.startswith("image/"):
        return ImageContent(data=resource.blob, mime_type=mime)
    if mime.startswith("audio/"):
        return AudioContent(data=resource.blob, mime_type=mime)
    size = len(resource.blob) * 3 // 4
    return TextContent(text=f"[resource {resource.uri}: {mime}, {size} bytes, not shown]")


def _says(parts: Sequence[Part], data: Any) -> bool:
    """Whether one of the texts is ``data`` as JSON already, as MCP servers are asked to do."""
    return any(part.type == "text" and _reads_as(part.text, data) for part in parts)


def _reads_as(text: str, data: Any) -> bool:
    if data == {"result": text}:
        return True
    try:
        return cast("bool", json.loads(text) == data)
    except (ValueError, RecursionError):
        return False
