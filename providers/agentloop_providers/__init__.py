"""Providers for agentloop. Nothing is loaded before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentloop_providers.anthropic import AnthropicProvider
    from agentloop_providers.offline import OfflineProvider
    from agentloop_providers.openai import OpenAIProvider
    from agentloop_providers.openai_chat import OpenAIChatProvider
    from agentloop_providers.retry import Retry
    from agentloop_providers.scripted import ScriptedProvider

__all__ = [
    "AnthropicProvider",
    "OfflineProvider",
    "OpenAIChatProvider",
    "OpenAIProvider",
    "Retry",
    "ScriptedProvider",
]

_HOME = {
    "AnthropicProvider": "agentloop_providers.anthropic",
    "OfflineProvider": "agentloop_providers.offline",
    "OpenAIChatProvider": "agentloop_providers.openai_chat",
    "OpenAIProvider": "agentloop_providers.openai",
    "Retry": "agentloop_providers.retry",
    "ScriptedProvider": "agentloop_providers.scripted",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentloop_providers' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
