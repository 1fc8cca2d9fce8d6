"""Tasks as 2025-11-25 has them: the same tasks, for clients of that revision."""

from __future__ import annotations

from agentloop.mcp.tasks.legacy.methods import LegacyTasks
from agentloop.mcp.tasks.legacy.wire import REVISION

__all__ = ["REVISION", "LegacyTasks"]
