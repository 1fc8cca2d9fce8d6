"""Agents inside MCP servers: whichever way the caller lets itself be asked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentloop.mcp.asker import caller
    from agentloop.mcp.codec import StateCodec
    from agentloop.mcp.handover import detach
    from agentloop.mcp.input_limits import InputLimits
    from agentloop.mcp.lowlevel import seal
    from agentloop.mcp.mounted import mount
    from agentloop.mcp.reentry import resumable
    from agentloop.mcp.remote import tools_from
    from agentloop.mcp.tasks import Tasks

__all__ = [
    "InputLimits",
    "StateCodec",
    "Tasks",
    "caller",
    "detach",
    "mount",
    "resumable",
    "seal",
    "tools_from",
]

_HOME = {
    "InputLimits": "agentloop.mcp.input_limits",
    "StateCodec": "agentloop.mcp.codec",
    "Tasks": "agentloop.mcp.tasks",
    "caller": "agentloop.mcp.asker",
    "detach": "agentloop.mcp.handover",
    "mount": "agentloop.mcp.mounted",
    "resumable": "agentloop.mcp.reentry",
    "seal": "agentloop.mcp.lowlevel",
    "tools_from": "agentloop.mcp.remote",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentloop.mcp' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
