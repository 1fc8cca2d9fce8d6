"""Anthropic's Messages API for tests, as strict as the real one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from anthropic.types import (
    Message,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
)
from anthropic.types.message_create_params import (
    MessageCreateParamsBase,
    MessageCreateParamsNonStreaming,
)

from agentloop.testing.backend import JSON, Backend, Says
from agentloop.testing.held_schema import MESSAGES

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FIELDS = {
    *MessageCreateParamsBase.__annotations__,
    *MessageCreateParamsNonStreaming.__annotations__,
}
_STOPS = {"maxTokens": "max_tokens", None: "end_turn"}
_IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}


class MessagesBackend(Backend):
    """``POST /v1/messages``."""

    features: ClassVar[frozenset[str]] = frozenset({"thinking", "images", "cache"})

    def __init__(self) -> None:
        super().__init__()
        self._signed: dict[str, JSON] = {}
        self._led: dict[str, list[JSON]] = {}
        """The thinking before a tool use, by its id; without it the use is refused."""

    def reply(self, says: Says, body: JSON) -> JSON:
        number = self.number()
        content: list[Any] = []
        if says.thinking is not None:
            signature = hashlib.sha256(f"{number} {says.thinking}".encode()).hexdigest()
            content.append(
                ThinkingBlock(type="thinking", thinking=says.thinking, signature=signature)
            )
            content.append(RedactedThinkingBlock(type="redacted_thinking", data=f"sealed{number}"))
        if says.text is not None:
            content.append(TextBlock(type="text", text=says.text, citations=None))
        for place, call in enumerate(says.calls):
            use = ToolUseBlock(
                type="tool_use",
                id=f"toolu_{number}_{place}",
                name=self.native_name(call.tool, body),
                input={},
            )
            use.input = call.arguments  # pyright: ignore[reportAttributeAccessIssue]
            content.append(use)
        stop: Any = "tool_use" if says.calls and not says.stop else _STOPS.get(says.stop, says.stop)
        message = Message.model_construct(
            id=f"msg_{number}",
            type="message",
            role="assistant",
            model=self.model,
            content=content,
            stop_reason=stop,
            stop_sequence=None,
            usage=self._usage(says),
        )
        response: JSON = json.loads(message.model_dump_json(exclude_unset=True, warnings=False))
        self._remember(response["content"])
        return response

    def _usage(self, says: Says) -> Any:
        if says.usage is None:
            return None
        read, written = says.usage.cache_read_tokens, says.usage.cache_write_tokens
        return Usage(
            input_tokens=says.usage.input_tokens - read - written,
            cache_read_input_tokens=read,
            cache_creation_input_tokens=written,
            output_tokens=says.usage.output_tokens,
        )

    def _remember(self, content: list[JSON]) -> None:
        self.spoken.append(content)
        thoughts = [block for block in content if "thinking" in block["type"]]
        for block in thoughts:
            self._signed[block.get("signature") or block["data"]] = block
        for block in content:
            if block["type"] == "tool_use":
                self._led[block["id"]] = thoughts

    def error(self, status: int, message: str) -> JSON:
        kinds = {
            400: "invalid_request_error",
            401: "authentication_error",
            402: "billing_error",
            403: "permission_error",
            404: "not_found_error",
            413: "request_too_large",
            429: "rate_limit_error",
            529: "overloaded_error",
        }
        kind = kinds.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def offered(self, body: JSON) -> Mapping[str, str]:
        return {tool.get("description", ""): tool["name"] for tool in body.get("tools", [])}

    def held(self, body: JSON) -> list[JSON]:
        strict = [tool["input_schema"] for tool in body.get("tools", []) if tool.get("strict")]
        return [*strict, *([_format(body)["schema"]] if _format(body) else [])]

    def in_words(self, body: JSON) -> bool:
        return bool(_format(body)) and body.get("tool_choice", {}).get("type") != "any"

    def schema_problem(self, schema: JSON) -> str | None:
        return MESSAGES.problem(schema)

    def heard(self, body: JSON) -> list[Any]:
        return [m["content"] for m in body["messages"] if m["role"] == "assistant"]

    # --- what the API refuses ------------------------------------------------------------------

    def problem(self, path: str, body: JSON) -> str | None:
        if path != "/v1/messages":
            return f"there is no {path}"
        if unknown := body.keys() - _FIELDS:
            return f"unknown fields: {sorted(unknown)}"
        if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
            return "max_tokens: field required"
        if body["max_tokens"] > 21_333 and not body.get("stream"):
            return "streaming is required for long requests"
        return (
            self._tools_problem(body)
            or self._order_problem(body["messages"])
            or next(filter(None, map(self._block_problem, _blocks(body["messages"]))), None)
        )

    def _tools_problem(self, body: JSON) -> str | None:
        names = [tool.get("name", "") for tool in body.get("tools", [])]
        for name in names:
            if not _NAME.fullmatch(name) or names.count(name) > 1:
                return f"tools: the name {name!r} is not allowed, or not unique"
        if any("input_schema" not in tool for tool in body.get("tools", [])):
            return "tools: input_schema: field required"
        choice = body.get("tool_choice", {}).get("type")
        if choice and not names:
            return "tool_choice without tools"
        if choice == "any" and body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
            return "Thinking may not be enabled when tool_choice forces tool use."
        return None

    def _order_problem(self, messages: list[JSON]) -> str | None:
        if not messages or messages[0]["role"] != "user":
            return "the first message must have the role user"
        open_uses: list[str] = []
        seen: set[str] = set()
        for message in _merged(messages):
            kinds = [block["type"] for block in message["content"]]
            results = kinds.count("tool_result")
            if kinds[:results].count("tool_result") != results:
                return "tool_result blocks must come first"
            answered = [b["tool_use_id"] for b in message["content"] if b["type"] == "tool_result"]
            if sorted(answered) != sorted(open_uses):
                return f"tool_use {open_uses} is answered by tool_result {answered}"
            open_uses = [b["id"] for b in message["content"] if b["type"] == "tool_use"]
            if seen.intersection(open_uses) or len(set(open_uses)) < len(open_uses):
                return "tool_use ids must be unique"
            seen.update(open_uses)
            if problem := self._thinking_problem(message["content"]):
                return problem
        if messages[-1]["role"] == "assistant" and messages[-1]["content"] != self.spoken[-1]:
            return "this model does not support prefill"
        return f"tool_use {open_uses} has no tool_result" if open_uses else None

    def _thinking_problem(self, content: list[JSON]) -> str | None:
        thoughts = [block for block in content if "thinking" in block["type"]]
        for block in thoughts:
            if self._signed.get(block.get("signature") or block.get("data", "")) != block:
                return "thinking blocks cannot be modified"
        for block in content:
            led = self._led.get(block["id"], []) if block["type"] == "tool_use" else []
            if any(thought not in thoughts for thought in led):
                return "expected thinking before tool_use"
        return None

    def _block_problem(self, block: JSON) -> str | None:
        kind = block["type"]
        if kind == "text" and not block["text"].strip():
            return "text content blocks must be non-empty"
        if kind == "image" and block["source"]["media_type"] not in _IMAGES:
            return f"image: media_type {block['source']['media_type']}"
        if kind == "tool_use" and not isinstance(block["input"], dict):
            return "tool_use: input must be an object"
        if kind == "tool_use" and not (_NAME.fullmatch(block["name"]) and _NAME.match(block["id"])):
            return "tool_use: the name or the id is not allowed"
        known = {"text", "image", "document", "tool_use", "tool_result", "search_result"}
        if kind not in known and "thinking" not in kind and not kind.startswith("server_"):
            return f"a block of type {kind}"
        return None

    def stream(self, response: JSON) -> bytes:
        events: list[JSON] = []
        start: JSON = {**response, "content": [], "stop_reason": None}
        events.append({"type": "message_start", "message": start})
        for index, block in enumerate(response["content"]):
            begun, deltas = _deltas(block)
            events.append({"type": "content_block_start", "index": index, "content_block": begun})
            events += [
                {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
            ]
            events.append({"type": "content_block_stop", "index": index})
        usage = response.get("usage") or {"output_tokens": 0}
        ended = {"stop_reason": response["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": ended, "usage": usage})
        events.append({"type": "message_stop"})
        lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
        return "".join(lines).encode()


def _format(body: JSON) -> JSON:
    format: JSON = body.get("output_config", {}).get("format") or {}
    return format


def _deltas(block: JSON) -> tuple[JSON, list[JSON]]:
    """How a block is streamed: as it begins, and what is added to it."""
    if block["type"] == "text":
        half = len(block["text"]) // 2
        texts = (block["text"][:half], block["text"][half:])
        return {**block, "text": ""}, [{"type": "text_delta", "text": text} for text in texts]
    if block["type"] == "tool_use":
        written = json.dumps(block["input"])
        parts = (written[:3], written[3:])
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        return {**block, "input": {}}, deltas
    if block["type"] == "thinking":
        return {**block, "thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    return block, []


def _merged(messages: list[JSON]) -> list[JSON]:
    """The messages as the API reads them: of one role in a row, they are one."""
    merged: list[JSON] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            content = [*merged[-1]["content"], *message["content"]]
            merged[-1] = {**message, "content": content}
        else:
            merged.append(message)
    return merged


def _blocks(messages: list[JSON]) -> list[JSON]:
    blocks = [block for message in messages for block in message["content"]]
    inner = [
        part
        for block in blocks
        if block["type"] == "tool_result"
        for part in block.get("content", [])
    ]
    return blocks + inner
