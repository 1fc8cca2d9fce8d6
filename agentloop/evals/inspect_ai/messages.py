"""Between MCP's messages and those of Inspect, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentAudio,
    ContentImage,
    ContentText,
    ModelOutput,
)
from inspect_ai.tool import ToolCall, ToolCallError
from mcp_types import (
    AudioContent,
    CreateMessageResultWithTools,
    ImageContent,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from pydantic import ValidationError

from agentloop.memo import Memo
from agentloop.meta import INVALID_KEY, PROVIDER_KEY, with_usage
from agentloop.usage import Usage
from agentloop_providers._content import Part, data_url, left_out, no_place, result_parts, turn
from agentloop_providers._names import Fitted

KIND = "inspect"

GO_ON = "Go on."
"""What an agent is asked where a conversation does not end with a question."""

_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}

_STOPS = {
    "stop": "endTurn",
    "max_tokens": "maxTokens",
    "model_length": "model_context_window_exceeded",
    "tool_calls": "toolUse",
    "content_filter": "content_filter",
}


class Chat:
    """Gives Inspect's messages for MCP's: each is made once, so that Inspect knows it again."""

    def __init__(self) -> None:
        self._made: Memo[list[ChatMessage]] = Memo()
        self._systems: dict[str, ChatMessageSystem] = {}

    def system(self, text: str) -> ChatMessageSystem:
        """The instructions of an agent."""
        if text not in self._systems:
            self._systems[text] = ChatMessageSystem(content=text)
        return self._systems[text]

    def of(self, messages: Iterable[SamplingMessage], names: Fitted) -> list[ChatMessage]:
        """``messages`` as Inspect has them. Raises ``BadRequestError`` for what has no place."""
        found: list[ChatMessage] = []
        called: dict[str, str] = {}
        for message in messages:
            made = self._made.get(message, lambda m=message: _to_chat(m, names, called))
            for chat in made:
                if isinstance(chat, ChatMessageAssistant):
                    called.update((call.id, call.function) for call in chat.tool_calls or ())
            found += made
        return found

    def remember(self, message: SamplingMessage, chat: Sequence[ChatMessage]) -> None:
        """``message`` was made of ``chat``."""
        self._made.get(message, lambda: list(chat))


# --- to Inspect ----------------------------------------------------------------------------------


def _to_chat(
    message: SamplingMessage, names: Fitted, called: Mapping[str, str]
) -> list[ChatMessage]:
    """``called`` says which function a tool use called, by its id."""
    if message.role == "assistant":
        return [_assistant(message, names)]
    results, parts = turn(message)
    chat: list[ChatMessage] = [_tool(result, called.get(result.tool_use_id)) for result in results]
    if parts:
        chat.append(ChatMessageUser(content=_flat([_shown(part) for part in parts])))
    return chat


def _shown(part: Part) -> Content:
    content = _content(part)
    if content is None:
        raise no_place(part, "Inspect")
    return content


def _tool(result: ToolResultContent, function: str | None) -> ChatMessageTool:
    parts = result_parts(result)
    content = [_content(part) or ContentText(text=left_out(part).text) for part in parts]  # pyright: ignore[reportArgumentType]
    error = None
    if result.is_error:
        told = "\n".join(part.text for part in parts if part.type == "text")
        error = ToolCallError("unknown", told or "It failed.")
    return ChatMessageTool(
        content=_flat(content), tool_call_id=result.tool_use_id, function=function, error=error
    )


def _assistant(message: SamplingMessage, names: Fitted) -> ChatMessageAssistant:
    """The model's message, as Inspect gave it where nothing of it was changed since."""
    blocks = message.content_as_list
    given = _given(message)
    if given is not None and _said(given, names) == _comparable(blocks):
        return given
    content = [_content(b) for b in blocks if b.type != "tool_use" and b.type != "tool_result"]
    calls = [
        ToolCall(id=b.id, function=names.fit(b.name), arguments=b.input)
        for b in blocks
        if b.type == "tool_use"
    ]
    return ChatMessageAssistant(
        content=_flat([item for item in content if item]), tool_calls=calls or None
    )


def _given(message: SamplingMessage) -> ChatMessageAssistant | None:
    state: Any = (message.meta or {}).get(PROVIDER_KEY)
    if not isinstance(state, dict):
        return None
    known = cast("dict[str, Any]", state)
    if known.get("kind") != KIND:
        return None
    try:
        return ChatMessageAssistant.model_validate(known.get("message"))
    except ValidationError:
        return None


def _said(message: ChatMessageAssistant, names: Fitted) -> list[Any]:
    return _comparable(_blocks(message, names))


def _comparable(blocks: Iterable[SamplingMessageContentBlock]) -> list[Any]:
    return [block.model_dump(exclude={"meta"}) for block in blocks]


def _content(part: Any) -> Content | None:
    """A part of a message; None where Inspect has no place for it."""
    if part.type == "text":
        return ContentText(text=part.text)
    if part.type == "image":
        return ContentImage(image=data_url(part))
    if part.type == "audio" and part.mime_type in _AUDIO:
        return ContentAudio(audio=data_url(part), format=cast("Any", _AUDIO[part.mime_type]))
    return None


def _flat(content: list[Content]) -> str | list[Content]:
    """A lone text as such: that is how Inspect shows it best."""
    if not content:
        return ""
    if len(content) == 1 and isinstance(content[0], ContentText):
        return content[0].text
    return content


# --- from Inspect --------------------------------------------------------------------------------


def to_reply(output: ModelOutput, names: Fitted) -> CreateMessageResultWithTools:
    """What a model answered."""
    if output.empty:
        return CreateMessageResultWithTools(role="assistant", content=[], model=output.model)
    message = output.message
    state = {"kind": KIND, "message": message.model_dump(mode="json", exclude_none=True)}
    meta: dict[str, Any] = {PROVIDER_KEY: state}
    return CreateMessageResultWithTools(
        role="assistant",
        content=_blocks(message, names),
        model=output.model or message.model or KIND,
        stop_reason=_STOPS.get(output.stop_reason, "endTurn"),
        _meta=with_usage(meta, usage) if (usage := _usage(output)) else meta,
    )


def to_sampling(chat: Sequence[ChatMessage]) -> list[tuple[SamplingMessage, list[ChatMessage]]]:
    """A conversation as MCP has it, each message with those of ``chat`` that it is made of.

    System messages go with the message after them; results that answer one message are one.
    """
    pairs: list[tuple[SamplingMessage, list[ChatMessage]]] = []
    waiting: list[ChatMessage] = []
    names = Fitted()
    for item in chat:
        if isinstance(item, ChatMessageSystem):
            waiting.append(item)
        elif isinstance(item, ChatMessageTool):
            block = _result(item)
            last = pairs[-1] if pairs else None
            if last and last[1] and isinstance(last[1][-1], ChatMessageTool):
                content = [*last[0].content_as_list, block]
                grown = SamplingMessage(role="user", content=content)
                pairs[-1] = (grown, [*last[1], *waiting, item])
            else:
                pairs.append((SamplingMessage(role="user", content=[block]), [*waiting, item]))
            waiting = []
        else:
            role = "assistant" if isinstance(item, ChatMessageAssistant) else "user"
            blocks = _blocks(item, names) or [TextContent(text="")]
            pairs.append((SamplingMessage(role=role, content=blocks), [*waiting, item]))
            waiting = []
    if waiting:
        pairs.append((SamplingMessage(role="user", content=[TextContent(text=GO_ON)]), waiting))
    return pairs


def _result(message: ChatMessageTool) -> ToolResultContent:
    text = message.error.message if message.error else message.text
    return ToolResultContent(
        tool_use_id=message.tool_call_id or "",
        content=[TextContent(text=text)],
        is_error=True if message.error else None,
    )


def _blocks(message: ChatMessage, names: Fitted) -> list[SamplingMessageContentBlock]:
    blocks: list[SamplingMessageContentBlock] = []
    for item in message.content_list:
        if isinstance(item, ContentText):
            if item.text.strip():
                blocks.append(TextContent(text=item.text))
        elif isinstance(item, ContentImage | ContentAudio):
            blocks.append(_media(item))
    if isinstance(message, ChatMessageAssistant):
        blocks += [_use(call, names) for call in message.tool_calls or ()]
    return blocks


def _media(item: ContentImage | ContentAudio) -> Part:
    source = item.image if isinstance(item, ContentImage) else item.audio
    head, comma, data = source.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return TextContent(text=f"[{item.type}: {source[:200]}]")
    mime = head.removeprefix("data:").removesuffix(";base64")
    if isinstance(item, ContentImage):
        return ImageContent(data=data, mime_type=mime)
    return AudioContent(data=data, mime_type=mime)


def _use(call: ToolCall, names: Fitted) -> ToolUseContent:
    meta = {INVALID_KEY: call.parse_error} if call.parse_error else None
    arguments = {} if call.parse_error else call.arguments
    return ToolUseContent(
        name=names.original(call.function), id=call.id, input=arguments, _meta=meta
    )


def _usage(output: ModelOutput) -> Usage | None:
    """What a reply used; Inspect counts cached input apart from other input."""
    usage = output.usage
    if usage is None or not usage.total_tokens:  # some of its models report zeros for nothing
        return None
    read, written = usage.input_tokens_cache_read or 0, usage.input_tokens_cache_write or 0
    return Usage(
        asks=1,
        input_tokens=usage.input_tokens + read + written,
        output_tokens=usage.output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
