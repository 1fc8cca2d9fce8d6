"""The Chat Completions API for tests, as strict as OpenAI's own; for every compatible server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from openai.types import CompletionUsage
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
)
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_message_function_tool_call import Function
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsNonStreaming,
)

from agentloop.testing.backend import JSON, Backend, Says, arguments_text
from agentloop.testing.held_schema import OPENAI

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FIELDS = {
    *CompletionCreateParamsBase.__annotations__,
    *CompletionCreateParamsNonStreaming.__annotations__,
}
_STOPS = {"maxTokens": "length", "refusal": "stop", None: "stop"}
_PARTS = {
    "system": {"text"},
    "user": {"text", "image_url", "input_audio"},
    "tool": {"text"},
    "assistant": {"text", "refusal"},
}


class ChatBackend(Backend):
    """``POST /chat/completions``. Thinking is ``reasoning_content``, wanted back as it was."""

    features: ClassVar[frozenset[str]] = frozenset(
        {"thinking", "images", "audio", "cache", "text arguments"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._reasoned: dict[str, str] = {}

    def reply(self, says: Says, body: JSON) -> JSON:
        number = self.number()
        calls: list[Any] = [
            ChatCompletionMessageFunctionToolCall(
                id=f"call_{number}_{place}",
                type="function",
                function=Function(
                    name=self.native_name(call.tool, body), arguments=arguments_text(call)
                ),
            )
            for place, call in enumerate(says.calls)
        ]
        refused = says.stop == "refusal"
        message = ChatCompletionMessage(
            role="assistant",
            content=None if refused else says.text,
            refusal=says.text if refused else None,
            annotations=[],
        )
        if calls:
            message.tool_calls = calls
        stop: Any = "tool_calls" if calls and not says.stop else _STOPS.get(says.stop, says.stop)
        choice = Choice.model_construct(index=0, message=message, finish_reason=stop, logprobs=None)
        completion = ChatCompletion.model_construct(
            id=f"chatcmpl-{number}",
            object="chat.completion",
            created=1,
            model=self.model,
            choices=[choice],
            usage=_usage(says),
        )
        response: JSON = json.loads(completion.model_dump_json(exclude_unset=True, warnings=False))
        said: JSON = response["choices"][0]["message"]
        if says.thinking is not None:  # a vendor's field, unknown to the types
            said["reasoning_content"] = says.thinking
            for call in said.get("tool_calls", []):
                self._reasoned[call["id"]] = says.thinking
        self.spoken.append(
            {k: v for k, v in said.items() if k != "annotations" and v is not None}
            if says.thinking is not None or refused
            else {k: v for k, v in said.items() if k in ("role", "content", "tool_calls")}
        )
        return response

    def error(self, status: int, message: str) -> JSON:
        kind = "invalid_request_error" if status < 429 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def offered(self, body: JSON) -> Mapping[str, str]:
        functions = [tool["function"] for tool in body.get("tools", [])]
        return {function.get("description", ""): function["name"] for function in functions}

    def held(self, body: JSON) -> list[JSON]:
        functions = [tool["function"] for tool in body.get("tools", [])]
        strict = [function["parameters"] for function in functions if function.get("strict")]
        return [*strict, *([_format(body)["schema"]] if _format(body) else [])]

    def in_words(self, body: JSON) -> bool:
        return bool(_format(body)) and body.get("tool_choice") != "required"

    def schema_problem(self, schema: JSON) -> str | None:
        return OPENAI.problem(schema)

    def heard(self, body: JSON) -> list[Any]:
        return [m for m in body["messages"] if m["role"] == "assistant"]

    # --- what the API refuses ------------------------------------------------------------------

    def problem(self, path: str, body: JSON) -> str | None:
        if not path.endswith("/chat/completions"):
            return f"there is no {path}"
        if unknown := body.keys() - _FIELDS:
            return f"unknown parameters: {sorted(unknown)}"
        if {"max_tokens", "max_completion_tokens"} <= body.keys():
            return "max_tokens and max_completion_tokens exclude each other"
        if len(body.get("stop", [])) > 4:
            return "at most 4 stop sequences"
        for tool in body.get("tools", []):
            if not _NAME.fullmatch(tool["function"]["name"]):
                return f"tools: the name {tool['function']['name']!r} is not allowed"
        if body.get("tool_choice") and not body.get("tools"):
            return "tool_choice is only allowed with tools"
        return self._order_problem(body["messages"])

    def _order_problem(self, messages: list[JSON]) -> str | None:
        open_calls: list[str] = []
        for message in messages:
            role = message["role"]
            if role == "tool":
                if message["tool_call_id"] not in open_calls:
                    return "a tool message must follow a message with its tool_call"
                open_calls.remove(message["tool_call_id"])
            elif open_calls:
                return f"tool_calls {open_calls} have no tool messages"
            if problem := self._message_problem(role, message):
                return problem
            open_calls += [call["id"] for call in message.get("tool_calls", [])]
        return f"tool_calls {open_calls} have no tool messages" if open_calls else None

    def _message_problem(self, role: str, message: JSON) -> str | None:
        content = message.get("content")
        if role not in _PARTS:
            return f"the role {role!r}"
        parts = cast("list[JSON]", content) if isinstance(content, list) else []
        if {part["type"] for part in parts} - _PARTS[role]:
            return f"content of another type in a message of the role {role!r}"
        if content is None and not message.get("tool_calls") and not message.get("refusal"):
            return "a message without content"
        for call in message.get("tool_calls", []):
            if not _NAME.fullmatch(call["function"]["name"]) or len(call["id"]) > 40:
                return "tool_calls: the name or the id is not allowed"
            try:
                json.loads(call["function"]["arguments"])
            except (TypeError, ValueError):
                return "tool_calls: the arguments are no JSON"
            wanted = self._reasoned.get(call["id"])
            if wanted is not None and message.get("reasoning_content") != wanted:
                return "reasoning_content must be passed back"
        return None


def _format(body: JSON) -> JSON:
    format: JSON = body.get("response_format") or {}
    schema: JSON = format["json_schema"] if format.get("type") == "json_schema" else {}
    return schema


def _usage(says: Says) -> Any:
    if says.usage is None:
        return None
    return CompletionUsage.model_validate(
        {
            "prompt_tokens": says.usage.input_tokens,
            "completion_tokens": says.usage.output_tokens,
            "total_tokens": says.usage.total_tokens,
            "prompt_tokens_details": {
                "cached_tokens": says.usage.cache_read_tokens,
                "cache_write_tokens": says.usage.cache_write_tokens,
            },
        }
    )
