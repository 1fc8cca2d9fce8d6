"""The fixture of MCP's own conformance suite: ``python -m tests.tasks.conformance_server``.

Serves HTTP on a free port of the loopback, which it prints. The names of the tools and what they do
are the suite's; it needs nothing of a server but them.
"""

from __future__ import annotations

import socket

import anyio
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import INTERNAL_ERROR
from pydantic import BaseModel

from agentloop import Agent, ask_user, gather
from agentloop.mcp import Tasks, detach, resumable
from agentloop.store import MemoryStore


class Confirmation(BaseModel):
    confirm: bool


class Person(BaseModel):
    name: str


def fixture() -> MCPServer:
    """A server with the tools that the suite calls."""
    tasks = Tasks(
        MemoryStore(),
        tools={"slow_compute": "always", "failing_job": "required", "protocol_error_job": "always"},
        poll=0.1,
    )
    server = MCPServer(
        "conformance", extensions=[tasks], lifespan=tasks.lifespan(), log_level="CRITICAL"
    )

    @server.tool()
    async def greet(name: str) -> str:
        return f"Hello, {name}!"

    @server.tool()
    async def slow_compute(seconds: float, label: str = "") -> str:
        await anyio.sleep(seconds)
        return f"{label}: done"

    @server.tool()
    async def failing_job() -> str:
        raise ToolError("it was bound to fail")

    @server.tool()
    async def protocol_error_job() -> str:
        raise MCPError(code=INTERNAL_ERROR, message="it broke the protocol")

    @server.tool()
    @resumable(task="always")
    async def confirm_delete(filename: str, ctx: Context) -> str:
        answer = await ask_user(f"Delete {filename}?", Confirmation)
        return f"deleted: {answer.confirm}"

    @server.tool()
    @resumable(task="always")
    async def multi_input(ctx: Context) -> str:
        one, other = await gather(ask_user("Who?", Person), ask_user("Sure?", Confirmation))
        return f"{one.name}: {other.confirm}"

    @server.tool()
    @resumable
    async def test_tool_with_task(ctx: Context) -> str:
        person = await ask_user("Who?", Person)
        await detach()
        return f"worked for {person.name}"

    _add_rounds(server)
    return server


def _add_rounds(server: MCPServer) -> None:
    """Tools whose questions travel in results: those of the suite that an agent can have."""

    @server.tool()
    @resumable
    async def test_input_required_result_sampling(ctx: Context) -> str:
        return (await Agent("geographer").run("What is the capital of France?")).text

    @server.tool()
    @resumable
    async def test_input_required_result_capabilities(ctx: Context) -> str:
        return (await Agent("geographer").run("What is the capital of France?")).text

    @server.tool()
    @resumable
    async def test_input_required_result_request_state(ctx: Context) -> str:
        await ask_user("Sure?", Confirmation)
        return "state-ok"

    @server.tool()
    @resumable
    async def test_input_required_result_tampered_state(ctx: Context) -> str:
        await ask_user("Sure?", Confirmation)
        return "state-ok"

    @server.tool()
    @resumable
    async def test_input_required_result_multi_round(ctx: Context) -> str:
        person = await ask_user("Who?", Person)
        await ask_user(f"Sure, {person.name}?", Confirmation)
        return f"done for {person.name}"


def main() -> None:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)  # noqa: T201
    app = fixture().streamable_http_app()
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[listener])


if __name__ == "__main__":
    main()
