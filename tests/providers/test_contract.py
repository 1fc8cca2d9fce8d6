"""Every provider of the project passes the contract, over mock HTTP and a real local server."""

from __future__ import annotations

from typing import Any, ClassVar

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from agentloop.provider import Provider
from agentloop.testing.backend import Backend, Line, Says
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.http_contract import HTTPProviderContract
from agentloop.testing.messages_api import MessagesBackend
from agentloop.testing.provider_contract import ProviderContract
from agentloop.testing.responses_api import ResponsesBackend
from agentloop_providers import (
    AnthropicProvider,
    OpenAIChatProvider,
    OpenAIProvider,
    ScriptedProvider,
)
from agentloop_providers.scripted import Line as ScriptLine
from agentloop_providers.scripted import reply, use


class TestAnthropicOverMockHTTP(HTTPProviderContract):
    backend_class = MessagesBackend

    def provider(self, backend: Backend) -> Provider:
        client = AsyncAnthropic(
            api_key=backend.key, base_url=backend.url, http_client=backend.http_client()
        )
        return AnthropicProvider(backend.model, client=client)


class TestAnthropicOverHTTP(HTTPProviderContract):
    backend_class = MessagesBackend
    over_http = True

    def provider(self, backend: Backend) -> Provider:
        return AnthropicProvider(backend.model, api_key=backend.key, base_url=backend.url)


class TestOpenAIOverMockHTTP(HTTPProviderContract):
    backend_class = ResponsesBackend

    def provider(self, backend: Backend) -> Provider:
        client = AsyncOpenAI(
            api_key=backend.key, base_url=backend.url, http_client=backend.http_client()
        )
        return OpenAIProvider(backend.model, client=client)


class TestOpenAIOverHTTP(HTTPProviderContract):
    backend_class = ResponsesBackend
    over_http = True

    def provider(self, backend: Backend) -> Provider:
        return OpenAIProvider(backend.model, api_key=backend.key, base_url=f"{backend.url}/v1")


class TestOpenAIChatOverMockHTTP(HTTPProviderContract):
    backend_class = ChatBackend

    def provider(self, backend: Backend) -> Provider:
        client = AsyncOpenAI(
            api_key=backend.key, base_url=backend.url, http_client=backend.http_client()
        )
        return OpenAIChatProvider(backend.model, client=client)


class TestOpenAIChatOverHTTP(HTTPProviderContract):
    backend_class = ChatBackend
    over_http = True

    def provider(self, backend: Backend) -> Provider:
        return OpenAIChatProvider(backend.model, api_key=backend.key, base_url=f"{backend.url}/v1")


class _Script:
    """A script as a backend; it refuses nothing."""

    features: ClassVar[frozenset[str]] = frozenset({"cache", "images", "audio"})

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def says(self, *lines: Line) -> None:
        self.lines += lines

    def next(self, _request: Any) -> ScriptLine:
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        assert isinstance(line, Says)
        uses = [
            use(call.tool, **call.arguments)
            for call in line.calls
            if isinstance(call.arguments, dict)
        ]
        words = [] if line.text is None else [line.text]
        return reply(*words, *uses, stop_reason=line.stop, usage=line.usage)


class TestScripted(ProviderContract):
    backend_class = _Script

    def provider(self, backend: _Script) -> Provider:
        return ScriptedProvider(backend.next, repeat=True)
