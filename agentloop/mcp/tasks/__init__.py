"""MCP tasks: calls that go on without their callers (SEP-2663)."""

from __future__ import annotations

from agentloop.mcp.tasks.client import FollowTasks
from agentloop.mcp.tasks.extension import Tasks

__all__ = ["FollowTasks", "Tasks"]
