"""An agent on the SDK's low-level server, beside a tool that the server has of its own.

uv run python examples/lowlevel_server.py          # serve on stdio
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)

from agentloop import Agent, Limits
from agentloop.mcp import mount

Request = ServerRequestContext[Any, Any]


async def list_tools(ctx: Request, params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[Tool(name="ping", input_schema={"type": "object"})])


async def call_tool(ctx: Request, params: CallToolRequestParams) -> CallToolResult:
    return CallToolResult(content=[TextContent(text="pong")])


def days_between(first: date, last: date) -> int:
    """Count the days from one date to another, e.g. 2026-01-31."""
    return (last - first).days


def add_days(day: date, days: int) -> date:
    """Give the date that is a number of days after a date."""
    return day + timedelta(days=days)


calendar = Agent(
    "calendar",
    "Answer questions about dates. Count with the tools, never by yourself.",
    tools=[days_between, add_days],
    limits=Limits(steps=6),
    description="Ask about dates, in words.",
)

server = Server("calendar", on_list_tools=list_tools, on_call_tool=call_tool)
mount(server, calendar)


async def main() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
