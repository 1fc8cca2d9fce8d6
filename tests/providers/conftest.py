"""What the tests of providers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from agentloop.testing.backend import Backend
from agentloop_providers import AnthropicProvider, OpenAIChatProvider, OpenAIProvider

Connect = Callable[..., Any]


@pytest.fixture(scope="session")
def connect() -> Connect:
    """Makes a provider of a class that reaches a backend over mock HTTP."""

    def connect(kind: type[Any], backend: Backend, **options: Any) -> Any:
        sdk = AsyncAnthropic if kind is AnthropicProvider else AsyncOpenAI
        client = sdk(api_key=backend.key, base_url=backend.url, http_client=backend.http_client())
        assert kind in (AnthropicProvider, OpenAIChatProvider, OpenAIProvider)
        return kind(backend.model, client=client, **options)

    return connect
