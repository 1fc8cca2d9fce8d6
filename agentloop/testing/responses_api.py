"""OpenAI's Responses API for tests, as strict as the real one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseUsage,
)
from openai.types.responses.response_create_params import (
    ResponseCreateParamsBase,
    ResponseCreateParamsNonStreaming,
)

from agentloop.testing.backend import JSON, Backend, Says, arguments_text
from agentloop.testing.held_schema import OPENAI

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FIELDS = {
    *ResponseCreateParamsBase.__annotations__,
    *ResponseCreateParamsNonStreaming.__annotations__,
}
_INCOMPLETE = {"maxTokens": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesBackend(Backend):
    """``POST /responses``, with nothing stored."""

    features: ClassVar[frozenset[str]] = frozenset(
        {"thinking", "images", "cache", "text arguments"}
    )

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, JSON] = {}
        self._after: dict[str, str] = {}
        """The id of the item that came right after a reasoning item; the two go together."""

    def reply(self, says: Says, body: JSON) -> JSON:
        number = self.number()
        output = [
            json.loads(item.model_dump_json(exclude_unset=True, by_alias=True))
            for item in self._output(says, body, number)
        ]
        for item, following in zip(output, [*output[1:], None], strict=True):
            self._items[item["id"]] = item
            if item["type"] == "reasoning" and following:
                self._after[item["id"]] = following["id"]
        self.spoken.append(output)
        reason = _INCOMPLETE.get(says.stop or "", says.stop)
        incomplete = reason is not None and says.stop != "refusal"
        return {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": 1.0,
            "status": "incomplete" if incomplete else "completed",
            "incomplete_details": {"reason": reason} if incomplete else None,
            "error": None,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": _usage(says),
        }

    def _output(self, says: Says, body: JSON, number: int) -> list[Any]:
        output: list[Any] = []
        if says.thinking is not None:
            output.append(
                ResponseReasoningItem(
                    id=f"rs_{number}",
                    type="reasoning",
                    summary=[],
                    encrypted_content=f"sealed {says.thinking} {number}",
                )
            )
        if says.text is not None:
            part = (
                ResponseOutputRefusal(type="refusal", refusal=says.text)
                if says.stop == "refusal"
                else ResponseOutputText(
                    type="output_text", annotations=[], logprobs=[], text=says.text
                )
            )
            output.append(
                ResponseOutputMessage(
                    id=f"msg_{number}",
                    type="message",
                    status="completed",
                    role="assistant",
                    phase="commentary" if says.calls else "final_answer",
                    content=[part],
                )
            )
        for place, call in enumerate(says.calls):
            output.append(
                ResponseFunctionToolCall(
                    id=f"fc_{number}_{place}",
                    type="function_call",
                    status="completed",
                    call_id=f"call_{number}_{place}",
                    name=self.native_name(call.tool, body),
                    arguments=arguments_text(call),
                )
            )
        return output

    def error(self, status: int, message: str) -> JSON:
        kind = "invalid_request_error" if status < 429 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def offered(self, body: JSON) -> Mapping[str, str]:
        return {tool.get("description", ""): tool["name"] for tool in body.get("tools", [])}

    def held(self, body: JSON) -> list[JSON]:
        strict = [tool["parameters"] for tool in body.get("tools", []) if tool["strict"]]
        return [*strict, *([_format(body)["schema"]] if _format(body) else [])]

    def in_words(self, body: JSON) -> bool:
        return bool(_format(body)) and body.get("tool_choice") != "required"

    def schema_problem(self, schema: JSON) -> str | None:
        return OPENAI.problem(schema)

    def heard(self, body: JSON) -> list[Any]:
        """The runs of items between two of the user's."""
        heard: list[list[JSON]] = []
        begins = True
        for item in body["input"]:
            own = item.get("role") == "user" or item.get("type") == "function_call_output"
            if not own and begins:
                heard.append([])
            if not own:
                heard[-1].append(item)
            begins = own
        return heard

    # --- what the API refuses ------------------------------------------------------------------

    def problem(self, path: str, body: JSON) -> str | None:
        if not path.endswith("/responses"):
            return f"there is no {path}"
        if unknown := body.keys() - _FIELDS:
            return f"unknown parameters: {sorted(unknown)}"
        if body.get("store") is not False:
            return "this organization stores nothing: store must be false"
        if body.get("max_output_tokens", 16) < 16:
            return "max_output_tokens must be at least 16"
        for tool in body.get("tools", []):
            if not {"type", "name", "parameters", "strict"} <= tool.keys():
                return f"tools: missing parameters in {sorted(tool)}"
            if not _NAME.fullmatch(tool["name"]):
                return f"tools: the name {tool['name']!r} is not allowed"
        if body.get("tool_choice") and not body.get("tools"):
            return "tool_choice without tools"
        return self._input_problem(body.get("input", []))

    def _input_problem(self, items: list[JSON]) -> str | None:
        if not items:
            return "input is empty"
        open_calls: list[str] = []
        for item, following in zip(items, [*items[1:], None], strict=True):
            kind = item.get("type", "message")
            if kind == "function_call":
                open_calls.append(item["call_id"])
            elif kind == "function_call_output":
                if item["call_id"] not in open_calls:
                    return f"no tool call found for the output of {item['call_id']}"
                open_calls.remove(item["call_id"])
            elif kind == "reasoning":
                after = self._after.get(item["id"])
                if after is not None and (following or {}).get("id") != after:
                    return "reasoning was provided without its required following item"
            if problem := self._item_problem(kind, item):
                return problem
        return f"no tool output found for {open_calls}" if open_calls else None

    def _item_problem(self, kind: str, item: JSON) -> str | None:
        if kind == "reasoning":
            known = self._items.get(item["id"])
            return None if known == item else "the encrypted content could not be verified"
        if kind == "function_call":
            if not _NAME.fullmatch(item["name"]) or len(item["call_id"]) > 64:
                return "function_call: the name or the call_id is not allowed"
            return None if isinstance(item["arguments"], str) else "arguments is no string"
        if kind == "function_call_output":
            content = item["output"]
        elif kind == "message":
            if item.get("role") not in ("user", "assistant"):
                return f"the role {item.get('role')!r}"
            content = item["content"]
        else:
            return f"an item of type {kind!r}"
        allowed = (
            {"output_text", "refusal"}
            if item.get("role") == "assistant"
            else {"input_text", "input_image", "input_file"}
        )
        if isinstance(content, str):
            return None
        kinds = {part["type"] for part in content} - allowed
        return f"content of types {sorted(kinds)}" if kinds else None


def _format(body: JSON) -> JSON:
    format: JSON = body.get("text", {}).get("format") or {}
    return format if format.get("type") == "json_schema" else {}


def _usage(says: Says) -> JSON | None:
    if says.usage is None:
        return None
    usage = ResponseUsage.model_validate(
        {
            "input_tokens": says.usage.input_tokens,
            "input_tokens_details": {
                "cached_tokens": says.usage.cache_read_tokens,
                "cache_write_tokens": says.usage.cache_write_tokens,
            },
            "output_tokens": says.usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": says.usage.total_tokens,
        }
    )
    return json.loads(usage.model_dump_json(exclude_unset=True))
