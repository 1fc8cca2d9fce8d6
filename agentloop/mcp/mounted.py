"""An agent as an MCP tool, in one line, in each of the three hosts."""

from __future__ import annotations

import sys
from typing import Annotated, Any, cast

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from pydantic import Field

from agentloop.agent import Agent
from agentloop.errors import DefinitionError
from agentloop.events import Sink
from agentloop.mcp.handover import When
from agentloop.mcp.input_limits import InputLimits
from agentloop.mcp.lowlevel import add_tool
from agentloop.mcp.reentry import resumable
from agentloop.mcp.result import RESUME, to_tool_result
from agentloop.mcp.served import DEFAULT_INPUT_LIMITS, MAX_WIRE_STATE
from agentloop.mcp.stream import STREAM_SECONDS
from agentloop.provider import Provider
from agentloop.result import RunResult
from agentloop.store import Store

Resume = Annotated[str | None, Field(description=RESUME)]


def mount(
    server: Any,
    agent: Agent[Any],
    *,
    name: str | None = None,
    description: str | None = None,
    provider: Provider | None = None,
    store: Store | None = None,
    on_event: Sink | None = None,
    emulate: bool = False,
    max_state_bytes: int = MAX_WIRE_STATE,
    task: When = "when_needed",
    input_limits: InputLimits = DEFAULT_INPUT_LIMITS,
    stream_seconds: float | None = STREAM_SECONDS,
) -> None:
    """Offer ``agent`` as a tool of ``server`` that takes a ``prompt``.

    ``server`` is an ``MCPServer``, a low-level ``Server`` or a ``FastMCP``. The tool's output
    schema and structured content follow the agent's output type. The other
    arguments are those of :func:`agentloop.mcp.resumable`. Raises :class:`DefinitionError` for any
    other server.
    """
    if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"mount() takes a server and an Agent, not {agent!r}")
    name = name or agent.name
    description = description or agent.description
    options: Any = {
        "provider": provider,
        "store": store,
        "on_event": on_event,
        "emulate": emulate,
        "max_state_bytes": max_state_bytes,
        "task": task,
        "input_limits": input_limits,
        "stream_seconds": stream_seconds,
    }
    if isinstance(server, MCPServer):

        async def begin(prompt: str, ctx: Context[Any, Any]) -> Any:
            return to_tool_result(await agent.run(prompt))

        async def begin_or_resume(
            prompt: str, ctx: Context[Any, Any], resume: Resume = None
        ) -> Any:
            return to_tool_result(await agent.run(prompt, resume=resume))

        call = resumable(**options)(begin if store is None else begin_or_resume)
        call.__annotations__["return"] = _output_type(agent)
        call.__name__ = name  # the input schema's title, and what errors call the tool
        server.add_tool(call, name=name, description=description, structured_output=True)
    elif isinstance(server, Server):
        add_tool(cast("Server[Any]", server), agent, name=name, description=description, **options)
    elif (fastmcp := sys.modules.get("fastmcp")) and isinstance(server, fastmcp.FastMCP):
        _mount_fastmcp(server, agent, name, description, options)
    else:
        raise DefinitionError(
            f"mount() takes an MCPServer, a low-level Server or a FastMCP, not {server!r}"
        )


def _output_type(agent: Agent[Any]) -> Any:
    output = agent.definition.output
    return str if output is None else output.type


def _mount_fastmcp(
    server: Any, agent: Agent[Any], name: str, description: str, options: Any
) -> None:
    from fastmcp.tools.base import ToolResult

    def told(result: RunResult[Any]) -> Any:
        made = to_tool_result(result)
        return ToolResult(
            content=made.content,
            structured_content=None if made.is_error else made.structured_content,
            meta=made.meta,
            is_error=made.is_error,
        )

    async def begin(prompt: str) -> Any:
        return told(await agent.run(prompt))

    async def begin_or_resume(prompt: str, resume: Resume = None) -> Any:
        return told(await agent.run(prompt, resume=resume))

    call = resumable(**options)(begin if options["store"] is None else begin_or_resume)
    call.__annotations__["return"] = _output_type(agent)
    call.__name__ = name
    server.tool(call, name=name, description=description)
