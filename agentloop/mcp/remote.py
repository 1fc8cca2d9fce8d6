"""Tools that live in an MCP server: the same one, or another one behind a client."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import mcp_types
from mcp import Client, ClientSession
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError as HostToolError
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, InputRequiredResult

from agentloop.errors import DefinitionError, ToolError
from agentloop.intake import size_of
from agentloop.mcp.request import REQUEST
from agentloop.text import too_deep
from agentloop.tools import DEFAULT_TIMEOUT, Tool

MAX_TOOLS = 256
"""Tools that are taken from one source."""

MAX_LISTING = 1024 * 1024
"""Bytes of the names, descriptions and schemas of one source's tools."""

CallTool = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def tools_from(
    source: Any,
    *,
    prefix: str = "",
    only: set[str] | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,  # noqa: ASYNC109  of each call, not of this one
    max_tools: int = MAX_TOOLS,
    max_bytes: int = MAX_LISTING,
) -> list[Tool]:
    """The tools of ``source``, for an agent to call.

    ``source`` is the ``MCPServer`` or ``FastMCP`` that serves the agent itself, whose tools then
    run in the request that is being served and as its caller; or a connected ``mcp.Client``,
    ``ClientSession`` or ``fastmcp.Client``. ``prefix`` tells the tools of several servers apart;
    ``only`` names the ones to take.

    Schemas are passed on as they are and checked by the server that owns them. What a server says
    about its tools in annotations is not relied upon. Raises :class:`DefinitionError` for a source
    of another kind, or one that lists more than ``max_tools`` or, of those that are taken,
    descriptions and schemas of more than ``max_bytes``; and whatever listing the tools raises.
    """
    listed, call = await _open(source, max_tools)
    if len(listed) > max_tools:
        raise DefinitionError(f"the source has {len(listed)} tools, at most {max_tools} are taken")
    known = {tool.name for tool in listed}
    if only is not None and (unknown := only - known):
        raise DefinitionError(f"the source has no tools {sorted(unknown)}; it has {sorted(known)}")
    taken = [tool for tool in listed if only is None or tool.name in only]
    _check_size(taken, max_bytes)
    return [_tool(tool, call, prefix, timeout) for tool in taken]


def _check_size(tools: Sequence[mcp_types.Tool], most: int) -> None:
    size = 0
    for tool in tools:
        if too_deep(tool.input_schema):
            raise DefinitionError(f"the input schema of tool {tool.name[:128]!r} nests too deeply")
        size += size_of([tool.name, tool.title, tool.description, tool.input_schema])
    if size > most:
        raise DefinitionError(f"the source's tools take {size} bytes, at most {most} are taken")


def _tool(listed: mcp_types.Tool, call: CallTool, prefix: str, timeout: float | None) -> Tool:
    async def run(arguments: dict[str, Any]) -> Any:
        try:
            result = await call(listed.name, arguments)
        except MCPError as error:
            raise ToolError(f"{error.message} (code {error.code})") from error
        except HostToolError as error:
            raise ToolError(str(error)) from error
        if isinstance(result, InputRequiredResult):
            raise ToolError("This tool asks its caller for input, which a loop cannot pass on.")
        return result

    return Tool(
        name=f"{prefix}{listed.name}",
        title=listed.title,
        description=listed.description or "",
        input_schema=listed.input_schema,
        fn=run,
        check=_as_one_argument,
        timeout=timeout,
    )


def _as_one_argument(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"arguments": arguments}


async def _open(source: Any, most: int) -> tuple[list[mcp_types.Tool], CallTool]:
    if isinstance(source, MCPServer):
        server = cast("MCPServer[Any]", source)
        return await server.list_tools(), _caller_on(server)
    if isinstance(source, Client):
        return await _all_pages(source, most), source.call_tool
    if isinstance(source, ClientSession):
        # A session answers no asks of its server's; what they are about is told below.
        return await _all_pages(source, most), partial(source.call_tool, allow_input_required=True)
    fastmcp = sys.modules.get("fastmcp")
    if fastmcp is not None and isinstance(source, fastmcp.Client):
        return list(await source.list_tools()), source.call_tool_mcp
    if fastmcp is not None and isinstance(source, fastmcp.FastMCP):
        listed = [tool.to_mcp_tool(name=tool.name) for tool in await source.list_tools()]
        return listed, _caller_on_fastmcp(source)
    raise DefinitionError(
        "tools_from() takes an MCPServer, a FastMCP, or a connected mcp.Client, ClientSession or "
        f"fastmcp.Client, not {source!r}"
    )


async def _all_pages(client: Client | ClientSession, most: int) -> list[mcp_types.Tool]:
    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    for _ in range(most):
        if isinstance(client, Client):
            page = await client.list_tools(cursor=cursor)
        else:
            params = mcp_types.PaginatedRequestParams(cursor=cursor) if cursor else None
            page = await client.list_tools(params=params)
        tools.extend(page.tools)
        cursor = page.next_cursor
        if not cursor:
            return tools
    raise DefinitionError(f"the source has more than {most} pages of tools")


def _caller_on(server: MCPServer[Any]) -> CallTool:
    """Calls the server's own tools inside the request that is being served.

    The context is rebuilt without the answers and the state of this request: they belong to the
    tool that the client called.
    """

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        request = REQUEST.get()
        outer: Any = None if request is None else request.context
        if not isinstance(outer, Context):
            return await server.call_tool(name, arguments)
        outer = cast("Context[Any, Any]", outer)
        context = Context[Any, Any](request_context=outer.request_context, mcp_server=server)
        return await server.call_tool(name, arguments, context)

    return call


def _caller_on_fastmcp(server: Any) -> CallTool:
    from fastmcp.exceptions import FastMCPError

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        try:
            result = await server.call_tool(name, arguments)
        except FastMCPError as error:  # says what the server lets its clients see
            raise ToolError(str(error)) from error
        if getattr(result, "input_required", None) is not None:
            return result.input_required
        return CallToolResult(
            content=result.content,
            structured_content=result.structured_content,
            is_error=bool(result.is_error),
        )

    return call
