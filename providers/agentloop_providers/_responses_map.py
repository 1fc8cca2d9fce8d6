"""Between MCP's messages and the items of the Responses API, both ways."""

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

from agentloop.usage import Usage
from agentloop_providers._content import (
    Part,
    data_url,
    flat_text,
    left_out,
    no_place,
    result_parts,
    turn,
)
from agentloop_providers._json import count, fill_arguments, tool_use, write
from agentloop_providers._names import Fitted
from agentloop_providers._state import HOLE, own_form
from agentloop_providers._strict import Held, offered

KIND = "openai"

Item = dict[str, Any]

_TEXTS = {"output_text": "text", "refusal": "refusal"}
"""The parts of a message that are text to MCP, each with the field that holds it."""

_STOPS = {"max_output_tokens": "maxTokens"}


# --- to the API ----------------------------------------------------------------------------------


def to_tools(request: CreateMessageRequestParams, names: Fitted, answer: Held | None) -> list[Item]:
    """The tools of a request, of which the API is to hold the ``answer``."""
    return [
        {
            "type": "function",
            "name": names.fit(tool.name),
            **({"description": tool.description} if tool.description else {}),
            "parameters": schema,
            "strict": strict,
        }
        for tool, schema, strict in offered(request, answer)
    ]


def to_input(messages: Iterable[SamplingMessage], model: str, names: Fitted) -> list[Item]:
    """The messages as items. Raises ``BadRequestError`` for what the API has no place for."""
    ids = Fitted()
    items: list[Item] = []
    for message in messages:
        if message.role == "assistant":
            items += _said(message, model, names, ids)
        else:
            items += _asked(message, ids)
    return items


def _asked(message: SamplingMessage, ids: Fitted) -> Iterator[Item]:
    results, parts = turn(message)
    for result in results:
        call_id = ids.fit(result.tool_use_id)
        yield {"type": "function_call_output", "call_id": call_id, "output": _output(result)}
    content: list[Item] = []
    for part in parts:
        if part.type == "audio":
            raise no_place(part, "the Responses API")
        content.append(_part(part))
    if content:
        yield {"role": "user", "content": content}


def _output(result: ToolResultContent) -> str | list[Item]:
    parts: list[Part] = [
        left_out(part) if part.type == "audio" else part for part in result_parts(result)
    ]
    if all(part.type == "text" for part in parts):
        return flat_text(result, parts)
    error: list[Part] = [TextContent(text="Error:")] if result.is_error else []
    return [_part(part) for part in [*error, *parts]]


def _part(part: Part) -> Item:
    if part.type == "text":
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": data_url(part), "detail": "auto"}


def _said(message: SamplingMessage, model: str, names: Fitted, ids: Fitted) -> Iterator[Item]:
    """The model's message: in the form that the API gave it if there is one that fits."""
    blocks = message.content_as_list
    form = own_form(message, KIND, model)
    if form is None or not all(map(_is_own, form)) or _kinds(form) != [b.type for b in blocks]:
        yield from (_mapped(block, names, ids) for block in blocks)
        return
    visible = iter(blocks)
    for item in form:
        if item.get("type") == "function_call" and item.get("call_id") is HOLE:
            call = _call(next(visible), names, ids, known=True)
            given = fill_arguments(item.get("arguments"), call["arguments"])
            yield {**item, **call, "arguments": given}
        elif _text_fields(item):
            parts: list[Item] = []
            for part in item["content"]:
                field = _text_field(part)
                parts.append({**part, field: _text(next(visible))} if field else part)
            yield {**item, "content": parts}
        else:
            yield item


def _mapped(block: SamplingMessageContentBlock, names: Fitted, ids: Fitted) -> Item:
    if block.type == "text":
        return {"role": "assistant", "content": block.text}
    return {"type": "function_call", **_call(block, names, ids)}


def _call(
    block: SamplingMessageContentBlock, names: Fitted, ids: Fitted, *, known: bool = False
) -> Item:
    if block.type != "tool_use":
        raise no_place(block, "the Responses API, in a message of the model,")
    return {
        "call_id": ids.again(block.id, known_to_api=known),
        "name": names.fit(block.name),
        "arguments": write(block.input),
    }


def _text(block: SamplingMessageContentBlock) -> str:
    return block.text if block.type == "text" else ""


def _is_own(item: Item) -> bool:
    """Whether a model may have written ``item``: who carried it may have put in a system message,
    or a tool's result."""
    kind = str(item.get("type"))
    if kind == "message":
        return item.get("role") == "assistant"
    return kind in ("reasoning", "compaction") or kind.endswith("_call")


def _kinds(form: Sequence[Item]) -> list[str]:
    kinds: list[str] = []
    for item in form:
        if item.get("type") == "function_call" and item.get("call_id") is HOLE:
            kinds.append("tool_use")
        else:
            kinds += ["text"] * len(_text_fields(item))
    return kinds


def _text_fields(item: Item) -> list[str]:
    """The fields of a message item that are holes."""
    content = item.get("content")
    if item.get("type") != "message" or not isinstance(content, list):
        return []
    return [field for part in cast("list[Any]", content) if (field := _text_field(part))]


def _text_field(part: Any) -> str | None:
    if not isinstance(part, dict):
        return None
    field = _TEXTS.get(str(cast("Item", part).get("type")))
    return field if field and cast("Item", part).get(field) is HOLE else None


# --- from the API --------------------------------------------------------------------------------


def from_output(
    output: Sequence[Item], names: Fitted
) -> tuple[list[SamplingMessageContentBlock], list[Item]]:
    """The blocks of a reply that MCP has too, and its form. Raises ``ValueError`` for damage."""
    blocks: list[SamplingMessageContentBlock] = []
    form: list[Item] = []
    for item in output:
        if item["type"] == "function_call":
            name, call_id, arguments = (item.get(k) for k in ("name", "call_id", "arguments"))
            if not isinstance(name, str) or not isinstance(call_id, str):
                raise ValueError("a function_call has no name or no call_id")
            use = tool_use(name=names.original(name), id=call_id, arguments=arguments)
            blocks.append(use)
            kept = HOLE if arguments == write(use.input) else arguments
            form.append({**item, "call_id": HOLE, "name": HOLE, "arguments": kept})
        elif item["type"] == "message":
            texts, content = _from_message(item)
            blocks += texts
            form.append({**item, "content": content})
        else:
            form.append(item)
    return blocks, form


def _from_message(item: Item) -> tuple[list[TextContent], list[Item]]:
    given = item.get("content")
    if not isinstance(given, list) or not all(
        isinstance(p, dict) for p in cast("list[Any]", given)
    ):
        raise ValueError("a message has no content, or not of parts")
    texts: list[TextContent] = []
    content: list[Item] = []
    for part in cast("list[Item]", given):
        field = _TEXTS.get(str(part.get("type")))
        if field is None:
            content.append(part)
        elif not isinstance(part.get(field), str):
            raise ValueError(f"a part of a message has no {field}")
        else:
            texts.append(TextContent(text=part[field]))
            content.append({**part, field: HOLE})
    return texts, content


def to_stop(data: Item, output: Sequence[Item]) -> str | None:
    """The stop reason; None where the response has not ended."""
    if data.get("status") == "incomplete":
        details = data.get("incomplete_details")
        reason = cast("Item", details).get("reason") if isinstance(details, dict) else None
        return _STOPS.get(str(reason), str(reason or "incomplete"))
    if data.get("status", "completed") != "completed":
        return None
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    if any(part.get("type") == "refusal" for part in parts):
        return "refusal"
    return "toolUse" if any(item["type"] == "function_call" for item in output) else "endTurn"


def to_usage(data: Item) -> Usage | None:
    """What a reply used; None where it does not say."""
    if not isinstance(data.get("usage"), dict):
        return None
    usage = cast("Item", data["usage"])
    details = usage.get("input_tokens_details")
    known = cast("Item", details) if isinstance(details, dict) else {}
    return Usage(
        asks=1,
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        cache_read_tokens=count(known.get("cached_tokens")),
        cache_write_tokens=count(known.get("cache_write_tokens")),
    )
