"""What tests of agents and of servers with agents need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentloop.testing.client import MockClient

__all__ = ["MockClient"]


def __getattr__(name: str) -> Any:
    if name != "MockClient":
        raise AttributeError(f"module 'agentloop.testing' has no attribute {name!r}")
    return import_module("agentloop.testing.client").MockClient
