"""A request, read: the question, the tools, and the calls that were made for it so far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mcp_types import (
    CreateMessageRequestParams,
    SamplingMessage,
    Tool,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.meta import NOTICE_KEY
from agentloop.output import ANSWER_TOOL
from agentloop_providers.offline.question import Question

SIGNATURE = "(Offline stand-in:"
"""What the last line of an answer begins with; it is no part of what another one is told."""


@dataclass(frozen=True)
class Call:
    """A tool use of the transcript and its result."""

    step: int
    """The replies that came before it since the question; -1 for a call before the question."""
    name: str
    input: dict[str, Any]
    result: ToolResultContent

    @property
    def failed(self) -> bool:
        return bool(self.result.is_error)

    @cached_property
    def text(self) -> str:
        """The text of the result, without what the runtime added for the model."""
        blocks = [block for block in self.result.content if block.type == "text"]
        return _unsigned("\n".join(b.text for b in blocks if not (b.meta and NOTICE_KEY in b.meta)))

    @property
    def label(self) -> str:
        """The call as a person would write it: ``get_weather(city='Paris')``."""
        given = ", ".join(f"{name}={_brief(value)}" for name, value in self.input.items())
        return f"{self.name}({given})"


class Conversation:
    """What a request says, as far as the stand-in understands it."""

    def __init__(self, request: CreateMessageRequestParams) -> None:
        self.system = request.system_prompt or ""
        self.choice = (request.tool_choice and request.tool_choice.mode) or "auto"
        tools = request.tools or []
        self.tools: list[Tool] = [tool for tool in tools if tool.name != ANSWER_TOOL]
        self.answer_tool: Tool | None = next((t for t in tools if t.name == ANSWER_TOOL), None)
        asked = _last_asked(request.messages)
        self.question = Question(_words(request.messages[asked]) if request.messages else "")
        before = _last_asked(request.messages[:asked])
        self._before = Question(_words(request.messages[before]) if asked else "")
        self.replies = sum(message.role == "assistant" for message in request.messages)
        self.calls: list[Call] = []
        """Calls that have a result, the rejected answers apart, oldest first."""
        self.rejected: list[Call] = []
        """Typed answers that did not fit."""
        self.ids: set[str] = set()
        self.steps = 0
        """Replies since the question."""
        self._read(request.messages, asked)

    def _read(self, messages: list[SamplingMessage], asked: int) -> None:
        open_uses: dict[str, tuple[int, ToolUseContent]] = {}
        for place, message in enumerate(messages):
            for block in message.content_as_list:
                if block.type == "tool_use":
                    self.ids.add(block.id)
                    open_uses[block.id] = (self.steps if place > asked else -1, block)
                elif block.type == "tool_result" and block.tool_use_id in open_uses:
                    step, use = open_uses.pop(block.tool_use_id)
                    call = Call(step, use.name, use.input, block)
                    (self.rejected if use.name == ANSWER_TOOL else self.calls).append(call)
            if place > asked and message.role == "assistant":
                self.steps += 1
            if place == asked:
                self.rejected = []

    @property
    def meant(self) -> frozenset[str]:
        """The stems that say which tool is meant; a short question goes on with the last one."""
        verbs = self.question.verbs
        return verbs if len(self.question.words) > 2 else verbs | self._before.verbs

    @cached_property
    def made(self) -> frozenset[str]:
        """The calls that were made, in a form that tells equal ones."""
        return frozenset(fingerprint(call.name, call.input) for call in self.calls)

    @cached_property
    def last_calls(self) -> list[Call]:
        """The calls of the last step that made any."""
        last = self.calls[-1].step if self.calls else 0
        return [call for call in self.calls if call.step == last]


def fingerprint(name: str, arguments: dict[str, Any]) -> str:
    """The same text for the same call."""
    return f"{name} {json.dumps(arguments, sort_keys=True, default=str)}"


def _last_asked(messages: list[SamplingMessage]) -> int:
    """Where the question is: the last message of the user that is not made of results."""
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role == "user" and _words(messages[place]).strip():
            return place
    return 0


def _words(message: SamplingMessage) -> str:
    """The text of a message, without what the runtime added for the model."""
    texts = [block for block in message.content_as_list if block.type == "text"]
    return _unsigned("\n".join(b.text for b in texts if not (b.meta and NOTICE_KEY in b.meta)))


def _unsigned(text: str) -> str:
    if SIGNATURE not in text:
        return text
    return "\n".join(line for line in text.split("\n") if not line.startswith(SIGNATURE)).rstrip()


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:56] + "...'"
