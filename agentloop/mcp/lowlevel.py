"""Agents on the SDK's low-level ``Server``, which has no tools of its own to add to."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from agentloop.agent import Agent
from agentloop.mcp.codec import StateCodec
from agentloop.mcp.handover import When, setting_of, with_setting
from agentloop.mcp.reentry import resumable
from agentloop.mcp.result import RESUME, to_tool_result
from agentloop.output import Output

_PROMPT: dict[str, Any] = {"prompt": {"type": "string"}}
_RESUME: dict[str, Any] = {"resume": {"type": "string", "description": RESUME}}


def seal(server: Server[Any], security: RequestStateSecurity | None = None) -> None:
    """Make sure that state which crosses the wire is sealed (SEP-2322: a MUST).

    ``MCPServer`` and FastMCP do it by themselves. Without ``security`` the key is this process's
    own; several processes must share one:
    ``seal(server, RequestStateSecurity(codec=StateCodec(keys=[...])))``.
    """
    if any(isinstance(item, RequestStateBoundary) for item in server.middleware):
        return
    boundary = RequestStateBoundary(
        security or RequestStateSecurity(codec=StateCodec()), default_audience=server.name
    )
    server.middleware.append(boundary)


def _wrong(what: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=what)], is_error=True)


def add_tool(
    server: Server[Any], agent: Agent[Any], *, name: str, description: str, **options: Any
) -> None:
    """Offer ``agent`` beside the tools that ``server``'s own handlers list and call."""
    seal(server)
    listed = server.get_request_handler("tools/list")
    called = server.get_request_handler("tools/call")
    output = agent.definition.output or Output(str)
    takes = _PROMPT if options.get("store") is None else _PROMPT | _RESUME
    offer = Tool(
        name=name,
        description=description,
        input_schema={"type": "object", "properties": takes, "required": ["prompt"]},
        output_schema=output.schema,
    )

    async def on_list(
        ctx: ServerRequestContext[Any, Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        before: Any = await listed.handler(ctx, params) if listed else ListToolsResult(tools=[])
        last_page = before.next_cursor is None
        tools = [*before.tools, offer] if last_page else before.tools
        return before.model_copy(update={"tools": tools})

    @resumable(**options)
    async def run_agent(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        given = params.arguments or {}
        prompt, resume = given.get("prompt"), given.get("resume")
        if not isinstance(prompt, str):
            return _wrong("prompt: required, a text")
        if not isinstance(resume, str | None):
            return _wrong("resume: a text, the handle of an earlier answer")
        return to_tool_result(await agent.run(prompt, resume=resume))

    async def on_call(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult | Any:
        if params.name == name:
            return await run_agent(ctx, params)
        if called is None:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        return await called.handler(ctx, params)

    server.add_request_handler("tools/list", PaginatedRequestParams, on_list)

    def setting(named: str) -> When | None:
        return setting_of(run_agent if named == name or called is None else called.handler, named)

    with_setting(on_call, setting)
    server.add_request_handler("tools/call", CallToolRequestParams, on_call)
