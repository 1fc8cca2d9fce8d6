"""Tasks as SEP-2663 writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from agentloop.task import Status, Task


def handle(task: Task, *, poll: float) -> dict[str, Any]:
    """What a caller gets in place of a result: ``CreateTaskResult``."""
    return {"resultType": "task", **_outline(task, poll)}


def details(task: Task, *, poll: float) -> dict[str, Any]:
    """What ``tasks/get`` and ``notifications/tasks`` say: ``DetailedTask``."""
    seen = _outline(task, poll)
    if task.status is Status.INPUT_REQUIRED:
        seen["inputRequests"] = dict(task.asks)
    elif task.status is Status.COMPLETED:
        seen["result"] = dict(task.outcome or {})
    elif task.status is Status.FAILED:
        seen["error"] = dict(task.outcome or {})
    return seen


def _outline(task: Task, poll: float) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "taskId": task.id,
        "status": str(task.status),
        "createdAt": moment(task.created),
        "lastUpdatedAt": moment(task.updated),
        "ttlMs": None if task.ttl is None else round(task.ttl * 1000),
        "pollIntervalMs": round(poll * 1000),
    }
    if task.message:
        seen["statusMessage"] = task.message
    return seen


def moment(seconds: float) -> str:
    """A time as both revisions write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def unknown_task() -> MCPError:
    """The error for a task that is not there: it never was, it expired, or it is another's."""
    return MCPError(code=INVALID_PARAMS, message="there is no such task")
