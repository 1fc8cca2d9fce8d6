"""An agent loop for MCP servers that does not care where the model is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentloop._version import __version__

if TYPE_CHECKING:
    from agentloop.agent import Agent
    from agentloop.branches import gather, once
    from agentloop.errors import AgentLoopError, RunStopped, ToolError
    from agentloop.place import idempotency_key
    from agentloop.provider import Provider
    from agentloop.result import RunResult
    from agentloop.run import Run, Stop
    from agentloop.secret import keep_secret
    from agentloop.tools import Tool, tool
    from agentloop.usage import Limits, Usage
    from agentloop.user import ask_url, ask_user

__all__ = [
    "Agent",
    "AgentLoopError",
    "Limits",
    "Provider",
    "Run",
    "RunResult",
    "RunStopped",
    "Stop",
    "Tool",
    "ToolError",
    "Usage",
    "__version__",
    "ask_url",
    "ask_user",
    "gather",
    "idempotency_key",
    "keep_secret",
    "once",
    "tool",
]

# Found on first use, so that `import agentloop` costs nothing and loads no protocol code.
_HOME = {
    "Agent": "agentloop.agent",
    "AgentLoopError": "agentloop.errors",
    "Limits": "agentloop.usage",
    "Provider": "agentloop.provider",
    "Run": "agentloop.run",
    "RunResult": "agentloop.result",
    "RunStopped": "agentloop.errors",
    "Stop": "agentloop.run",
    "Tool": "agentloop.tools",
    "ToolError": "agentloop.errors",
    "Usage": "agentloop.usage",
    "ask_url": "agentloop.user",
    "ask_user": "agentloop.user",
    "gather": "agentloop.branches",
    "idempotency_key": "agentloop.place",
    "keep_secret": "agentloop.secret",
    "once": "agentloop.branches",
    "tool": "agentloop.tools",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentloop' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
