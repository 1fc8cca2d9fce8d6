"""Tasks as 2025-11-25 writes them (SEP-1686).

``failed`` are also tasks whose result is an error of the tool.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.streamable_http import REQUEST_CANCELLED
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
)
from mcp_types.methods import serialize_server_result
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import ValidationError

from agentloop.log import log
from agentloop.mcp.handover import When
from agentloop.mcp.tasks.call import repeatable
from agentloop.mcp.tasks.wire import moment
from agentloop.task import Status, Task
from agentloop.transcript import WIRE

Setting = Callable[[str], Awaitable[When | None]]
"""When calls of a tool become tasks, by its name; None where nobody said."""

REVISION = "2025-11-25"
RELATED_TASK = "io.modelcontextprotocol/related-task"
"""In the ``_meta`` of whatever belongs to a task: its id."""

SUPPORT: Mapping[When, str] = {
    "never": "forbidden",
    "when_needed": "optional",
    "always": "optional",
    "required": "required",
}
"""What clients are told of a tool (``execution.taskSupport``)."""

_ASKABLE = {"sampling", "elicitation", "roots"}


def seen(task: Task, *, poll: float) -> dict[str, Any]:
    """What a task is doing: ``Task``."""
    found: dict[str, Any] = {
        "taskId": task.id,
        "status": "failed" if _is_error(task) else str(task.status),
        "createdAt": moment(task.created),
        "lastUpdatedAt": moment(task.updated),
        "ttl": None if task.ttl is None else round(task.ttl * 1000),
        "pollInterval": round(poll * 1000),
    }
    return found | ({"statusMessage": task.message} if task.message else {})


def related(id: str) -> dict[str, Any]:
    """What a message that belongs to a task has in its ``_meta``."""
    return {RELATED_TASK: {"taskId": id}}


def _is_error(task: Task) -> bool:
    """Whether the tool said that it failed: to this revision, the task did then."""
    return task.status is Status.COMPLETED and bool((task.outcome or {}).get("isError"))


def outcome(task: Task) -> dict[str, Any]:
    """What the call of a task that has ended would have given to this revision's client."""
    given = dict(task.outcome or {})
    if task.status is Status.CANCELLED:
        raise MCPError(REQUEST_CANCELLED, "the task was cancelled")
    if task.status is Status.FAILED:
        raise MCPError(given["code"], given["message"], given.get("data"))
    try:
        written = serialize_server_result("tools/call", REVISION, given)
    except ValidationError as error:
        log().warning("result_not_of_revision", task=task.id, revision=REVISION)
        raise MCPError(INTERNAL_ERROR, "Handler returned an invalid result") from error
    meta: dict[str, Any] = dict(written.get("_meta") or {})
    meta.pop(SERVER_INFO_META_KEY, None)  # the next revision's, in which tasks are worked on
    return written | {"_meta": meta | related(task.id)}


def request(ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
    """The call as a worker makes it: with what this revision's clients say once, at the start."""
    params = repeatable(ctx)
    session = ctx.session
    declared: dict[str, Any] = {}
    if session.client_capabilities is not None and session.can_send_request:
        declared = session.client_capabilities.model_dump(**WIRE, include=_ASKABLE)
    meta: dict[str, Any] = {
        **(params.get("_meta") or {}),
        PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
        CLIENT_CAPABILITIES_META_KEY: declared,
    }
    if session.client_params is not None:
        meta[CLIENT_INFO_META_KEY] = session.client_params.client_info.model_dump(**WIRE)
    return params | {"_meta": meta}


def declaring(result: HandlerResult, *, listing: bool) -> HandlerResult:
    """The result of ``initialize`` with what the server can do with tasks."""
    if not isinstance(result, dict) or result.get("protocolVersion") != REVISION:
        return result
    tasks: dict[str, Any] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
    if listing:
        tasks["list"] = {}
    return result | {"capabilities": {**result["capabilities"], "tasks": tasks}}


async def supporting(result: HandlerResult, setting: Setting) -> HandlerResult:
    """The result of ``tools/list`` with which tools can be called as tasks."""
    if not isinstance(result, dict):
        return result
    tools: list[dict[str, Any]] = []
    for tool in result["tools"]:
        when = await setting(str(tool["name"]))
        support: dict[str, Any] = (
            {} if when is None else {"execution": {"taskSupport": SUPPORT[when]}}
        )
        tools.append({**tool, **support})
    return result | {"tools": tools}


def cursor(task: Task) -> str:
    """Where a page of tasks ends."""
    return base64.urlsafe_b64encode(json.dumps([task.created, task.id]).encode()).decode()


def position(cursor: str) -> tuple[float, str]:
    """What :func:`cursor` wrote. Raises ``MCPError`` for anything else."""
    try:
        created, id = json.loads(base64.urlsafe_b64decode(cursor))
        return float(created), str(id)
    except (ValueError, TypeError) as error:
        raise MCPError(INVALID_PARAMS, "the cursor is not one of this server's") from error
