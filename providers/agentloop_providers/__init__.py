"""Providers for agentloop. Nothing is loaded before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentloop_providers.offline import OfflineProvider
    from agentloop_providers.scripted import ScriptedProvider

__all__ = ["OfflineProvider", "ScriptedProvider"]

_HOME = {
    "OfflineProvider": "agentloop_providers.offline",
    "ScriptedProvider": "agentloop_providers.scripted",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentloop_providers' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
