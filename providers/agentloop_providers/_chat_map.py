"""Between MCP's messages and those of Chat Completions, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from mcp_types import (
    CreateMessageRequestParams,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.output import ANSWER_TOOL
from agentloop.usage import Usage
from agentloop_providers._content import (
    Part,
    audio_format,
    data_url,
    flat_text,
    left_out,
    no_place,
    result_parts,
    turn,
)
from agentloop_providers._json import count, fill_arguments, tool_use, write
from agentloop_providers._names import Fitted, fits
from agentloop_providers._state import HOLE, own_form
from agentloop_providers._strict import Held, answer_in, offered

KIND = "openai-chat"

ID_LIMIT = 40
"""Longer ids of tool calls are refused."""

Message = dict[str, Any]

_STOPS = {
    "stop": "endTurn",
    "length": "maxTokens",
    "tool_calls": "toolUse",
    "function_call": "toolUse",
}

_ONLY_OUT = frozenset({"annotations", "audio", "function_call"})
"""What replies have and requests do not take back."""


# --- to the API ----------------------------------------------------------------------------------


def to_tools(
    request: CreateMessageRequestParams, names: Fitted, answer: Held | None
) -> list[Message]:
    """The tools of a request, of which the API is to hold the ``answer``."""
    return [
        {
            "type": "function",
            "function": {
                "name": names.fit(tool.name),
                **({"description": tool.description} if tool.description else {}),
                "parameters": schema,
                **({"strict": True} if strict else {}),
            },
        }
        for tool, schema, strict in offered(request, answer)
    ]


def to_format(answer: Held) -> Message:
    """The response format of a request for nothing but the ``answer``."""
    format = {"name": ANSWER_TOOL, "schema": answer.schema, "strict": True}
    return {"type": "json_schema", "json_schema": format}


def to_system(prompt: str, answer: Held | None) -> str:
    """The system message; of an ``answer`` in words it says how, since many servers hold a model
    to a schema without showing it."""
    if answer is None or not answer.alone:
        return prompt
    how = (
        f"[Answer with one JSON object and nothing else: it stands for the call of {ANSWER_TOOL}. "
        f"Its JSON Schema: {write(answer.schema)}]"
    )
    return f"{prompt}\n\n{how}" if prompt.strip() else how


def to_messages(messages: Iterable[SamplingMessage], model: str, names: Fitted) -> list[Message]:
    """The messages of a request. Raises ``BadRequestError`` for what the API has no place for."""
    ids = Fitted(ID_LIMIT)
    sent: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            sent.append(_said(message, model, names, ids))
        else:
            sent += _asked(message, ids)
    return sent


def _asked(message: SamplingMessage, ids: Fitted) -> Iterator[Message]:
    results, parts = turn(message)
    content: list[Message] = []
    for result in results:
        text, media = _result(result)
        call = ids.fit(result.tool_use_id)
        if media:  # tool messages hold text only; the rest comes right after them
            content += [_text_part(f"[From the result of the tool call {call}:]"), *media]
        yield {"role": "tool", "tool_call_id": call, "content": text}
    for part in parts:
        if (sent := _part(part)) is None:
            raise no_place(part, "the Chat Completions API")
        content.append(sent)
    if len(content) == 1 and content[0]["type"] == "text":
        yield {"role": "user", "content": content[0]["text"]}
    elif content:
        yield {"role": "user", "content": content}


def _result(result: ToolResultContent) -> tuple[str, list[Message]]:
    """The text of a result, and its images and audio."""
    texts: list[Part] = []
    media: list[Message] = []
    for part in result_parts(result):
        sent = _part(part)
        if part.type == "text":
            texts.append(part)
        elif sent is None:
            texts.append(left_out(part))
        else:
            media.append(sent)
            texts.append(TextContent(text=f"[{part.type} in the next message]"))
    return flat_text(result, texts), media


def _part(part: Part) -> Message | None:
    """A part of a user message; None for what the API has no part for."""
    if part.type == "text":
        return _text_part(part.text)
    if part.type == "image":
        return {"type": "image_url", "image_url": {"url": data_url(part)}}
    if (format := audio_format(part)) is None:
        return None
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": format}}


def _text_part(text: str) -> Message:
    return {"type": "text", "text": text}


def _said(message: SamplingMessage, model: str, names: Fitted, ids: Fitted) -> Message:
    """The model's message: in the form that the API gave it if there is one that fits."""
    texts: list[str] = []
    uses: list[ToolUseContent] = []
    for block in message.content_as_list:
        if block.type == "text":
            texts.append(block.text)
        elif block.type == "tool_use":
            uses.append(block)
        else:
            raise no_place(block, "the Chat Completions API, in a message of the model,")
    form = own_form(message, KIND, model)
    if form and _holes(form[0]) == (len(texts), len(uses)):
        return _filled(form[0], texts, uses, names, ids)
    said: Message = {"role": "assistant", "content": "\n".join(texts) or None}
    if uses:
        said["tool_calls"] = [_call({}, use, names, ids) for use in uses]
    return said if texts or uses else {**said, "content": ""}


def _filled(
    form: Message, texts: list[str], uses: list[ToolUseContent], names: Fitted, ids: Fitted
) -> Message:
    rest = iter(texts)
    said = {**form, "role": "assistant"}  # whoever carried the form may have changed it
    content = form.get("content")
    if content is HOLE:
        said["content"] = next(rest)
    elif isinstance(content, list):
        said["content"] = [
            {**part, "text": next(rest)} if _is_hole(part) else part
            for part in cast("list[Any]", content)
        ]
    if form.get("refusal") is HOLE:
        said["refusal"] = next(rest)
    if uses:
        said["tool_calls"] = [
            _call(call, use, names, ids) for call, use in zip(form["tool_calls"], uses, strict=True)
        ]
    return said


def _call(form: Message, use: ToolUseContent, names: Fitted, ids: Fitted) -> Message:
    known: Message = form.get("function", {})
    arguments = fill_arguments(known.get("arguments"), write(use.input))
    function = {**known, "name": names.fit(use.name), "arguments": arguments}
    id = ids.again(use.id, known_to_api=bool(form))
    return {**(form or {"id": "", "type": "function"}), "id": id, "function": function}


def _holes(form: Message) -> tuple[int, int] | None:
    """How many texts and tool uses a form wants; None where it is damaged."""
    content = form.get("content")
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    try:
        calls = [_object(_object(c, "").get("function"), "") for c in form.get("tool_calls", ())]
        texts = [content is HOLE, form.get("refusal") is HOLE, *map(_is_hole, parts)]
    except (TypeError, ValueError):
        return None
    return sum(texts), len(calls)


def _is_hole(part: Any) -> bool:
    return _object(part, "a part of the content").get("text") is HOLE


# --- from the API --------------------------------------------------------------------------------


def from_message(
    message: Message, names: Fitted
) -> tuple[list[SamplingMessageContentBlock], Message | None]:
    """The blocks of a reply, and its form unless mapping the blocks gives the same anyway.

    Raises ``ValueError`` where the message is damaged.
    """
    form = {k: v for k, v in message.items() if v is not None and k not in _ONLY_OUT}
    blocks: list[SamplingMessageContentBlock] = []
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        form["content"] = [_take_text(part, blocks) for part in parts]
    elif isinstance(content, str):
        if content.strip():
            blocks.append(TextContent(text=content))
            form["content"] = HOLE
    elif content is not None:
        raise ValueError(f"the content is a JSON {type(content).__name__}")
    if isinstance(refusal, str) and refusal.strip():
        blocks.append(TextContent(text=refusal))
        form["refusal"] = HOLE
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise ValueError(f"tool_calls is a JSON {type(calls).__name__}")
    given = cast("list[Any]", calls or [])
    form["tool_calls"] = [_take_call(call, blocks, names) for call in given]
    if not given:
        del form["tool_calls"]
    return blocks, None if _is_plain(form, given) else form


def with_answer(message: Message, answer: Held, names: Fitted) -> Message:
    """``message`` with an answer in words as the call of a tool that it stands for."""
    content = message.get("content")
    if message.get("tool_calls") or answer_in(content) is None:
        return message
    function = {"name": names.fit(ANSWER_TOOL), "arguments": content}
    call = {"id": answer.id, "type": "function", "function": function}
    return {**message, "content": None, "tool_calls": [call]}


def _take_text(given: Any, blocks: list[SamplingMessageContentBlock]) -> Message:
    """A part of a list of content, some vendors' way to set their reasoning apart."""
    part = _object(given, "a part of the content")
    if part.get("type") != "text":
        return part
    if not isinstance(part.get("text"), str):
        raise ValueError("a part of the content has no text")
    blocks.append(TextContent(text=part["text"]))
    return {**part, "text": HOLE}


def _take_call(given: Any, blocks: list[SamplingMessageContentBlock], names: Fitted) -> Message:
    call = _object(given, "a tool call")
    function = _object(call.get("function"), "the function of a tool call")
    name, id, arguments = function.get("name"), call.get("id"), function.get("arguments")
    if not isinstance(name, str):
        raise ValueError("the function of a tool call has no name")
    original = names.original(name)
    use = tool_use(name=original, id=id if isinstance(id, str) else "", arguments=arguments)
    blocks.append(use)
    kept = HOLE if arguments == write(use.input) else arguments
    return {**call, "id": HOLE, "function": {**function, "name": HOLE, "arguments": kept}}


def _object(value: Any, what: str) -> Message:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no JSON object")
    return cast("Message", value)


def _is_plain(form: Message, calls: Sequence[Any]) -> bool:
    return (
        form.keys() <= {"role", "content", "tool_calls"}
        and (form.get("content", HOLE) is HOLE)
        and all(
            list(call) == ["id", "type", "function"]
            and list(call["function"]) == ["name", "arguments"]
            and call["function"]["arguments"] is HOLE
            for call in form.get("tool_calls", ())
        )
        and all(fits(call["id"], ID_LIMIT) for call in calls)
    )


def to_stop(reason: object, message: Message, blocks: Sequence[SamplingMessageContentBlock]) -> str:
    """The stop reason. What the message holds counts for more than what it says of itself."""
    if isinstance(message.get("refusal"), str) and message["refusal"].strip():
        return "refusal"
    stop = _STOPS.get(reason, reason) if isinstance(reason, str) else "endTurn"
    if stop in ("endTurn", "toolUse"):
        return "toolUse" if any(block.type == "tool_use" for block in blocks) else "endTurn"
    return stop


def to_usage(data: Message) -> Usage | None:
    """What a reply used; None where it does not say, as some servers do."""
    if not isinstance(data.get("usage"), dict):
        return None
    usage = cast("Message", data["usage"])
    details = usage.get("prompt_tokens_details")
    known = cast("Message", details) if isinstance(details, dict) else {}
    return Usage(
        asks=1,
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        cache_read_tokens=count(known.get("cached_tokens"))
        or count(usage.get("prompt_cache_hit_tokens")),
        cache_write_tokens=count(known.get("cache_write_tokens")),
    )
