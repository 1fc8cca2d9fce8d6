"""A call that a server makes to itself, in the place of the client that made it first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.runner import modern_on_request
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.transport_context import TransportContext

from agentloop.mcp.handover import Running, When, going_on, setting_of
from agentloop.mcp.tasks.principal import acting_for

Note = Callable[[str], None]
"""Takes what the call says of its progress."""

_OF_ONE_REQUEST = ("inputResponses", "requestState", "task")


def low_level(server: Any) -> Server[Any]:
    """The SDK's low-level server inside of any host."""
    for name in ("_lowlevel_server", "_mcp_server"):  # MCPServer's and FastMCP's; neither shows it
        server = getattr(server, name, server)
    return server


async def author_setting(server: Any, name: str) -> When | None:
    """When calls of the tool ``name`` become tasks, as its author said; None where nobody did."""
    inner = low_level(server)
    if isinstance(server, MCPServer):
        tool: Any = server._tool_manager.get_tool(name)  # pyright: ignore[reportPrivateUsage]  # it shows no functions
    elif server is not inner:  # FastMCP
        tool = await server.get_tool(name)
    else:
        called = inner.get_request_handler("tools/call")
        return None if called is None else setting_of(called.handler, name)
    return setting_of(getattr(tool, "fn", None), name)


def repeatable(ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
    """The ``params`` of a call as it can be made again: without what belongs to one request."""
    params = ctx.params or {}
    return {name: params[name] for name in params if name not in _OF_ONE_REQUEST}


async def go_on(server: Server[Any], lifespan: Any, running: Running, note: Note) -> dict[str, Any]:
    """Let the task's function go on, as far as it comes without its client.

    The call takes the way of any other one: middleware, validation, the host's own handler. Gives
    its result as it would cross the wire; raises what the handler raises, mostly ``MCPError``.
    """
    task = running.task
    params: dict[str, Any] = dict(task.request)
    # FastMCP says nothing of progress to those who did not ask for it.
    params["_meta"] = {**params.get("_meta", {}), "progressToken": running.request_id}
    if task.answers:
        params["inputResponses"] = dict(task.answers)
    if task.state is not None:
        params["requestState"] = task.state
    context = _OwnCall(running.request_id, note)
    with going_on(running), acting_for(task.caller):
        return await modern_on_request(server, lifespan)(context, "tools/call", params)


def _nowhere() -> TransportContext:
    return TransportContext(kind="task", can_send_request=False)


@dataclass
class _OwnCall:
    """The SDK's dispatch context of a call that nobody waits for."""

    request_id: str
    note: Note
    transport: TransportContext = field(default_factory=_nowhere)
    message_metadata: None = None
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)
    can_send_request: bool = False

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Drop it: tasks have no notifications but their own (SEP-2663)."""
        message = (params or {}).get("message")
        if method == "notifications/progress" and isinstance(message, str):
            self.note(message)

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        if message:
            self.note(message)
