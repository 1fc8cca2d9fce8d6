"""Between MCP's messages and those of the Messages API, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from mcp_types import (
    CreateMessageRequestParams,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    ToolResultContent,
)

from agentloop.output import ANSWER_TOOL
from agentloop.usage import Usage
from agentloop_providers._content import Part, left_out, no_place, result_parts, turn
from agentloop_providers._json import count, tool_use
from agentloop_providers._names import Fitted, fits
from agentloop_providers._state import HOLE, own_form
from agentloop_providers._strict import Held, answer_in, offered

KIND = "anthropic"

Block = dict[str, Any]

_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

_VISIBLE = {"text": "text", "tool_use": "id"}
"""The kinds of blocks that MCP has too, each with a field that is a hole in its form."""

_STOPS = {
    "end_turn": "endTurn",
    "max_tokens": "maxTokens",
    "stop_sequence": "stopSequence",
    "tool_use": "toolUse",
}


# --- to the API ----------------------------------------------------------------------------------


def to_tools(
    request: CreateMessageRequestParams, names: Fitted, answer: Held | None
) -> list[Block]:
    """The tools of a request, of which the API is to hold the ``answer``."""
    return [
        {
            "name": names.fit(tool.name),
            **({"description": tool.description} if tool.description else {}),
            "input_schema": schema,
            **({"strict": True} if strict else {}),
        }
        for tool, schema, strict in offered(request, answer)
    ]


def to_format(answer: Held) -> Block:
    """The response format of a request for nothing but the ``answer``."""
    return {"type": "json_schema", "schema": answer.schema}


def to_messages(messages: Iterable[SamplingMessage], model: str, names: Fitted) -> list[Block]:
    """The messages of a request. Raises ``BadRequestError`` for what the API has no place for."""
    ids = Fitted()
    sent: list[Block] = []
    for message in messages:
        if message.role == "assistant":
            content = _said(message, model, names, ids)
        else:
            content = list(_asked(message, ids))
        if content:
            sent.append({"role": message.role, "content": content})
    return sent


def _asked(message: SamplingMessage, ids: Fitted) -> Iterator[Block]:
    results, parts = turn(message)
    for result in results:  # the API wants them first
        yield _result(result, ids)
    for part in parts:
        if (block := _part(part)) is None:
            raise no_place(part, "the Messages API")
        yield block


def _result(result: ToolResultContent, ids: Fitted) -> Block:
    content: list[Block] = []
    for part in result_parts(result):
        block = _part(part)
        content.append(
            _text(left_out(part).text) if block is None and part.type != "text" else block or {}
        )
    return {
        "type": "tool_result",
        "tool_use_id": ids.fit(result.tool_use_id),
        **({"content": content} if content else {}),
        **({"is_error": True} if result.is_error else {}),
    }


def _part(part: Part) -> Block | None:
    """A text or an image; None for what the API has no block for."""
    if part.type == "text":
        return _text(part.text)
    if part.type == "image" and part.mime_type in _IMAGES:
        source = {"type": "base64", "media_type": part.mime_type, "data": part.data}
        return {"type": "image", "source": source}
    return None


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _said(message: SamplingMessage, model: str, names: Fitted, ids: Fitted) -> list[Block]:
    """The model's message: in the form that the API gave it if there is one that fits."""
    blocks = message.content_as_list
    form = own_form(message, KIND, model)
    known = form is not None and _kinds(form) == [block.type for block in blocks]
    parts: list[Block] = form if form and known else [{"type": block.type} for block in blocks]
    visible = iter(blocks)
    content: list[Block] = []
    for part in parts:
        if known and not _is_visible(part):
            content.append(part)
            continue
        block = next(visible)
        if block.type != "text":
            content.append({**part, **_use(block, names, ids, known=known)})
        elif block.text.strip():  # the API refuses blank text
            content.append({**part, "text": block.text})
    return content


def _use(block: SamplingMessageContentBlock, names: Fitted, ids: Fitted, *, known: bool) -> Block:
    if block.type != "tool_use":
        raise no_place(block, "the Messages API, in a message of the model,")
    return {
        "id": ids.again(block.id, known_to_api=known),
        "name": names.fit(block.name),
        "input": block.input,
    }


def _kinds(form: Sequence[Block]) -> list[str]:
    return [part["type"] for part in form if _is_visible(part)]


def _is_visible(part: Block) -> bool:
    field = _VISIBLE.get(str(part.get("type")))
    return field is not None and part.get(field) is HOLE


# --- from the API --------------------------------------------------------------------------------


def with_answer(content: list[Block], answer: Held, names: Fitted) -> list[Block]:
    """``content`` with an answer in words as the use of a tool that it stands for."""
    texts = [block.get("text") for block in content if block["type"] == "text"]
    input = answer_in("".join(text for text in texts if isinstance(text, str)))
    if input is None or any(block["type"] == "tool_use" for block in content):
        return content
    name = names.fit(ANSWER_TOOL)
    use = {"type": "tool_use", "id": answer.id, "name": name, "input": input}
    return [*(block for block in content if block["type"] != "text"), use]


def from_content(content: Sequence[Block], names: Fitted) -> list[SamplingMessageContentBlock]:
    """The blocks of a reply that MCP has too. Raises ``ValueError`` where one is damaged."""
    blocks: list[SamplingMessageContentBlock] = []
    for block in content:
        if block["type"] == "text":
            if not isinstance(block.get("text"), str):
                raise ValueError("a text block has no text")
            if block["text"].strip():
                blocks.append(TextContent(text=block["text"]))
        elif block["type"] == "tool_use":
            name, id = block.get("name"), block.get("id")
            if not isinstance(name, str) or not isinstance(id, str):
                raise ValueError("a tool_use block has no name or no id")
            original = names.original(name)
            blocks.append(tool_use(name=original, id=id, arguments=block.get("input")))
    return blocks


def to_form(content: Sequence[Block]) -> list[Block] | None:
    """The form of a reply; None where mapping its blocks gives the same anyway."""
    form: list[Block] = []
    plain = True
    for block in content:
        if block["type"] == "text":
            if block["text"].strip():
                form.append({**block, "text": HOLE})
                plain &= list(block) == ["type", "text"]
        elif block["type"] == "tool_use":
            form.append({**block, "id": HOLE, "name": HOLE, "input": HOLE})
            plain &= list(block) == ["type", "id", "name", "input"] and fits(block["id"])
        else:
            form.append(block)
            plain = False
    return None if plain else form


def to_stop(reason: object, content: Sequence[SamplingMessageContentBlock]) -> str:
    """The stop reason; ``refusal`` and others that MCP has no word for are passed on."""
    stop = _STOPS.get(reason, reason) if isinstance(reason, str) else "endTurn"
    if stop == "endTurn" and any(block.type == "tool_use" for block in content):
        return "toolUse"
    return stop


def to_usage(data: dict[str, Any]) -> Usage | None:
    """What a reply used; the API counts cached input apart from other input."""
    if not isinstance(data.get("usage"), dict):
        return None
    usage = cast("dict[str, Any]", data["usage"])
    written = count(usage.get("cache_creation_input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    return Usage(
        asks=1,
        input_tokens=count(usage.get("input_tokens")) + written + read,
        output_tokens=count(usage.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
