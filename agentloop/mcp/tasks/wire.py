"""Tasks as SEP-2663 writes them, and what both revisions write alike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, InputResponse, RequestParams
from pydantic import TypeAdapter, ValidationError

from agentloop.errors import TooManyTasksError
from agentloop.task import Status, Task

_ANSWER: TypeAdapter[InputResponse] = TypeAdapter(InputResponse)


class TaskParams(RequestParams):
    """The ``params`` of requests about one task."""

    task_id: str


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


def too_many_tasks(error: TooManyTasksError) -> MCPError:
    """The error for a call that there is no room for as a task."""
    return MCPError(
        code=INTERNAL_ERROR,
        message=f"{error}; send the same request again when some have ended",
        data={"reason": error.code, "retryable": True},
    )


def answers_to(task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the ``given`` answers that the task has asked for, in the protocol's own JSON.

    Raises ``MCPError`` for one that is no answer to anything.
    """
    answers: dict[str, Any] = {}
    for key in task.asks.keys() & given.keys():
        try:
            answer = _ANSWER.validate_python(given[key], by_name=False)
        except ValidationError:
            text = f"inputResponses[{key!r}]: this is no answer to {task.asks[key]['method']}"
            raise MCPError(code=INVALID_PARAMS, message=text) from None
        answers[key] = _ANSWER.dump_python(answer, mode="json", by_alias=True, exclude_none=True)
    return answers


def check_routing(request: Any, id: str) -> None:
    """Raises ``MCPError`` where what routes a ``request`` over HTTP is not the task it is about."""
    headers: Mapping[str, str] | None = getattr(request, "headers", None)
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != id:
        text = f"{MCP_NAME_HEADER} header does not match the request body's 'taskId' parameter"
        raise MCPError(code=HEADER_MISMATCH, message=text)
