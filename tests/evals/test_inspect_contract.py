"""Inspect's models pass the tests that every provider passes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from agentloop.provider import Provider
from agentloop.testing.backend import Line, Says, described
from agentloop.testing.provider_contract import ProviderContract

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")

from inspect_ai.model import (
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model,
)
from inspect_ai.tool import ToolCall

from agentloop.evals.inspect_ai import InspectProvider

_STOPS: dict[str | None, StopReason] = {
    "maxTokens": "max_tokens",
    "refusal": "content_filter",
    None: "stop",
}


class Mock:
    """Inspect's mock model, which says a script."""

    features: ClassVar[frozenset[str]] = frozenset({"cache", "images", "audio"})

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def says(self, *lines: Line) -> None:
        self._lines += lines

    def __call__(
        self, input: list[Any], tools: list[Any], choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        line = self._lines.pop(0) if len(self._lines) > 1 else self._lines[0]
        assert isinstance(line, Says)
        names = {tool.description: tool.name for tool in tools}
        calls = [
            ToolCall(
                id=f"c{len(input)}-{n}",
                function=names.get(described(call.tool), call.tool),
                arguments=call.arguments,
            )
            for n, call in enumerate(line.calls)
            if isinstance(call.arguments, dict)
        ]
        content: list[Any] = []
        if line.thinking:
            content.append(ContentReasoning(reasoning=line.thinking, signature="s"))
        if line.text:
            content.append(ContentText(text=line.text))
        message = ChatMessageAssistant(content=content or "", tool_calls=calls or None, model="m")
        stop = "tool_calls" if calls else _STOPS.get(line.stop, "unknown")
        output = ModelOutput.from_message(message, stop_reason=stop)
        output.usage = _usage(line)
        return output


def _usage(line: Says) -> ModelUsage:
    if line.usage is None:  # the mock would count, which takes a network
        return ModelUsage()
    usage = line.usage
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    return ModelUsage(
        input_tokens=usage.input_tokens - read - written,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_tokens_cache_read=read,
        input_tokens_cache_write=written,
    )


@pytest.mark.filterwarnings("ignore")
class TestInspect(ProviderContract):
    backend_class = Mock

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"  # Inspect keeps to the loop that it met first in a process

    def provider(self, backend: Mock) -> Provider:
        return InspectProvider(get_model("mockllm/m", custom_outputs=backend, memoize=False))
