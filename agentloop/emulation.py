"""Tool calls in plain text, for models and clients that know no others.

Some clients sample but declare no ``sampling.tools``, and some models have no tool calls of their
own. For them :func:`to_plain` writes the tools and the format of a call into the prompt, and
:func:`from_plain` finds the calls in what the model wrote. Both are functions of the request and
the reply alone, so that an ask can also travel between them: sent in one round, read in the next.

    ```tool_call
    {"name": "search", "arguments": {"query": "tides"}}
    ```

The protocol stands in the system prompt and, in full, in the last user message: clients may drop
or change system prompts. Transcripts have the same shape as with native calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from mcp_types import (
    AudioContent,
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    ImageContent,
    SamplingMessage,
    SamplingMessageContentBlock,
    TextContent,
    Tool,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.calls import CALL, RESULT, Call, Unread, find_calls
from agentloop.memo import Memo
from agentloop.meta import INVALID_KEY, NOTICE_KEY, PROVIDER_KEY, USAGE_KEY, Reply, with_usage
from agentloop.provider import Provider
from agentloop.text import cut
from agentloop.tokens import TokenCounter

EMULATED_KEY = "dev.agentloop/emulated"
"""On a sampling result: its tool calls were found in text."""

UNREADABLE = "unreadable_call"
"""The name of a tool use whose block cannot be read. No tool has it, so nothing is run for it."""

Rendered = Memo[list[SamplingMessage]]


class Emulated:
    """Another provider, with tool calls that travel as text.

    Replies are marked in ``_meta`` under ``dev.agentloop/emulated``. Where the provider reports no
    usage it is estimated, from what was really sent. Requests without tools pass unchanged.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._rendered = Rendered()
        self._counter = TokenCounter(None)

    @property
    def name(self) -> str:
        return f"emulated({self._provider.name})"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """The provider's reply, with the calls in its text as tool uses."""
        plain = to_plain(request, self._rendered)
        reply = await self._provider.sample(plain)
        if plain is request:
            return reply
        if not reply.meta or USAGE_KEY not in reply.meta:
            usage = self._counter.usage(plain, reply)
            reply = reply.model_copy(update={"meta": with_usage(reply.meta, usage)})
        return from_plain(reply, request)


# --- there: tools and calls into text ----------------------------------------------------------


def to_plain(
    request: CreateMessageRequestParams, rendered: Rendered | None = None
) -> CreateMessageRequestParams:
    """``request`` without tools and tool blocks; itself, where it has none.

    Every message has a single content block, as protocol versions before 2025-11-25 want it.
    ``rendered`` keeps what messages become, so that each is rendered once.
    """
    if not _has_tools(request):
        return request
    rendered = Rendered() if rendered is None else rendered
    messages: list[SamplingMessage] = []
    before: SamplingMessage | None = None
    for message in request.messages:
        messages += rendered.get(message, lambda m=message, b=before: _render(m, b))
        before = message
    choice = (request.tool_choice and request.tool_choice.mode) or "auto"
    tools = request.tools if choice != "none" else None
    system = "\n\n".join(filter(None, (request.system_prompt, _note(bool(tools)))))
    return request.model_copy(
        update={
            "messages": _remind(messages, _protocol(tools, choice)),
            "system_prompt": system,
            "tools": None,
            "tool_choice": None,
        }
    )


def _has_tools(request: CreateMessageRequestParams) -> bool:
    return bool(request.tools) or any(
        block.type in ("tool_use", "tool_result")
        for message in request.messages
        for block in message.content_as_list
    )


def _note(may_call: bool) -> str:
    if not may_call:
        return f"Blocks marked {CALL} and {RESULT} are earlier tool calls and what they gave."
    return (
        "You can call tools. The last message says at its end which there are and how to call "
        f"one: with a block marked {CALL}. Results come in blocks marked {RESULT}."
    )


def _protocol(tools: Sequence[Tool] | None, choice: str) -> str:
    if not tools:
        return "[No tools can be called now. Answer in words, from what is known.]"
    offered = "\n".join(
        f"- {tool.name}: {tool.description or 'no description'}\n"
        f"  arguments (JSON Schema): {_json(tool.input_schema)}"
        for tool in tools
    )
    ending = (
        "You must call at least one tool in this reply."
        if choice == "required"
        else "If you need no tool, answer in words, without such a block."
    )
    return (
        f"[Tools that you can call:\n{offered}\n\n"
        "To call a tool, write a block exactly like this, with the tool's name and arguments:\n\n"
        f'```{CALL}\n{{"name": "...", "arguments": {{"...": "..."}}}}\n```\n\n'
        "Write one block for each call; the calls of one reply run together. End your reply after "
        f"the last block and wait: the results come in blocks marked {RESULT}, which you never "
        f"write yourself. {ending}]"
    )


def _remind(messages: list[SamplingMessage], protocol: str) -> list[SamplingMessage]:
    """``messages`` with ``protocol`` at the end of the last one, which is the user's."""
    last = messages[-1] if messages else None
    if last and last.role == "user" and isinstance(last.content, TextContent):
        return [*messages[:-1], _says("user", f"{last.content.text}\n\n{protocol}")]
    return [*messages, _says("user", protocol)]


def _render(message: SamplingMessage, before: SamplingMessage | None) -> list[SamplingMessage]:
    """``message`` as messages of one block each; ``before`` has the calls that it may answer."""
    calls = {
        block.id: block
        for block in (before.content_as_list if before else ())
        if block.type == "tool_use"
    }
    texts: list[str] = []
    media: list[SamplingMessage] = []
    for block in message.content_as_list:
        if block.type == "text":
            texts.append(block.text)
        elif block.type == "tool_use":
            texts.append(_render_call(block))
        elif block.type == "tool_result":
            texts.append(_render_result(block, calls.get(block.tool_use_id), media))
        else:
            media.append(SamplingMessage(role=message.role, content=block))
    said = [_says(message.role, "\n\n".join(texts))] if texts else []
    return said + media


def _render_call(use: ToolUseContent) -> str:
    if use.name == UNREADABLE:
        return _fenced(CALL, str(use.input.get("text", "")))
    return _fenced(CALL, _json({"name": use.name, "arguments": use.input}))


def _render_result(
    result: ToolResultContent, use: ToolUseContent | None, media: list[SamplingMessage]
) -> str:
    """The text of ``result``; its images and audio go to ``media``, as messages of their own."""
    body: list[str] = []
    notices: list[str] = []
    for part in result.content:
        if part.type == "text":
            (notices if part.meta and NOTICE_KEY in part.meta else body).append(part.text)
        elif isinstance(part, ImageContent | AudioContent):
            media.append(SamplingMessage(role="user", content=part))
            body.append(f"({part.type}: see the message below)")
        else:
            body.append(part.model_dump_json(by_alias=True, exclude_none=True))
    if result.structured_content is not None:
        body.append(_json(result.structured_content))
    if use and use.meta and INVALID_KEY in use.meta:
        body = [str(use.meta[INVALID_KEY])]
    title = f"{RESULT} {use.name if use else ''}".rstrip() + (" error" if result.is_error else "")
    return "\n".join([_fenced(title, "\n".join(body)), *notices])


def _fenced(title: str, body: str) -> str:
    """``body`` in a fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{title}\n{body}\n{fence}"


def _says(role: str, text: str) -> SamplingMessage:
    return SamplingMessage.model_validate({"role": role, "content": TextContent(text=text)})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


# --- and back: text into calls -----------------------------------------------------------------


def from_plain(reply: Reply, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
    """``reply`` to ``to_plain(request)`` as the reply to ``request``: its calls are tool uses.

    A block marked as a call that cannot be read becomes a tool use of the name ``unreadable_call``:
    nothing is run for it, and in the next ask the model is told why. With ``toolChoice: none`` and
    without tools, nothing is taken for a call.
    """
    content = reply.content if isinstance(reply.content, list) else [reply.content]
    choice = request.tool_choice and request.tool_choice.mode
    names = {tool.name for tool in request.tools or ()} if choice != "none" else set[str]()
    blocks: list[SamplingMessageContentBlock] = []
    stop_reason = reply.stop_reason
    if names:
        text = "\n\n".join(block.text for block in content if block.type == "text")
        found = find_calls(text, names)
        if found.calls:
            prose = [TextContent(text=found.prose)] if found.prose else []
            uses = [_use(call, number, request) for number, call in enumerate(found.calls, 1)]
            blocks = [*prose, *(b for b in content if b.type != "text"), *uses]
            if isinstance(found.calls[-1], Call):  # so the reply was not cut off inside a call
                stop_reason = "toolUse"
    return CreateMessageResultWithTools(
        role=reply.role,
        content=blocks or _without_state(content),
        model=reply.model,
        stop_reason=stop_reason,
        _meta=_stateless(reply.meta) | {EMULATED_KEY: True},
    )


def _use(call: Call | Unread, number: int, request: CreateMessageRequestParams) -> ToolUseContent:
    """``call`` as a tool use whose id is the same whenever the reply is read, and no other's."""
    id = f"emulated-{len(request.messages)}-{number}"
    if isinstance(call, Call):
        return ToolUseContent(id=id, name=call.name, input=call.arguments)
    return ToolUseContent(
        id=id,
        name=UNREADABLE,
        input={"text": cut(call.text, 4096)},
        _meta={
            INVALID_KEY: f"Not run, the block cannot be read: {call.reason}. "
            "Write it again, complete, as one JSON object."
        },
    )


def _without_state(
    content: Sequence[SamplingMessageContentBlock],
) -> list[SamplingMessageContentBlock]:
    """``content`` without what a provider wants back verbatim: it never goes back so."""
    return [
        block.model_copy(update={"meta": _stateless(block.meta)}) if block.meta else block
        for block in content
    ]


def _stateless(meta: dict[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (meta or {}).items() if key != PROVIDER_KEY}
