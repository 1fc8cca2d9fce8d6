"""One server as two processes: whichever of them a request reaches, and also when one is killed.

    uv run python examples/replicas.py                                      # on a SQLite file
    uv run python examples/replicas.py postgresql+psycopg://user@host/name  # on PostgreSQL

Starts the server below twice, puts a proxy in front that hands every request to the other one, and
calls the agent by rounds, as a task, and as a durable run with a model of the server's own. In the
middle of the task, and of the durable run, the process that works on it is killed: another one
takes it over once the lease has run out. Needs the extra ``dbos`` and, on PostgreSQL, ``postgres``.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import CreateMessageRequestParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from agentloop import Agent, tool
from agentloop.durable import Durable
from agentloop.mcp import Tasks, mount
from agentloop.mcp.callback import TOOLS, sampling_callback
from agentloop.mcp.tasks import FollowTasks
from agentloop.sql_store import SQLStore
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use

STEPS = 5
LEASE = 2.0
"""Seconds until a process that is not heard of any more is taken for dead."""


# --- the server, of which there are two ----------------------------------------------------------


@tool(once=True)
async def measure(place: str) -> str:
    """Measure something. It must not be done twice."""
    await anyio.sleep(0.1)
    return f"{place}: measured by process {os.getpid()}"


def server(url: str) -> MCPServer:
    """The server, on the store at ``url``. All its processes share the store and the key."""
    store = SQLStore(url, lease=LEASE)
    tasks = Tasks(store, poll=0.1, look_every=0.2)
    durable = Durable(url, lease=LEASE)
    own_model = ScriptedProvider(model, repeat=True)
    expedition = durable.agent(Agent("expedition", tools=[measure]), provider=own_model)

    @asynccontextmanager
    async def working(_: MCPServer) -> AsyncGenerator[dict[str, Any]]:
        async with durable:
            yield {}

    served = MCPServer(
        "measuring",
        extensions=[tasks],
        lifespan=tasks.lifespan(working),
        request_state_security=RequestStateSecurity(keys=[os.environ["STATE_KEY"]]),
        log_level="ERROR",
    )
    surveyor = Agent("surveyor", "Measure what you are asked for.", tools=[measure])
    mount(served, surveyor, store=store)
    mount(served, surveyor, name="survey", store=store, task="always")

    @served.tool()
    async def set_out(id: str) -> int:
        """Start the expedition of that id; gives the process that works on it."""
        await expedition.start("Measure five places.", id=id)
        return os.getpid()

    @served.tool()
    async def come_back(id: str) -> list[str]:
        """Wait for the expedition of that id; gives what it measured."""
        result = await expedition.get(id).result()
        blocks = (block for message in result.messages for block in message.content_as_list)
        results = (block for block in blocks if block.type == "tool_result")
        return [part.text for each in results for part in each.content if part.type == "text"]

    return served


# --- the proxy -----------------------------------------------------------------------------------


class RoundRobin:
    """Hands each request to the next replica, and to another one where that is gone."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._client = httpx2.AsyncClient(timeout=60)
        self.served: list[int] = []
        """Which port each request went to."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = await request.body()
        await (await self._forward(request, body))(scope, receive, send)

    async def _forward(self, request: Request, body: bytes) -> Response:
        for _ in self._ports:
            port = self._ports.pop(0)
            self._ports.append(port)
            headers = [(k, v) for k, v in request.headers.items() if k != "host"]
            url = f"http://127.0.0.1:{port}{request.url.path}"
            sent = self._client.build_request(request.method, url, headers=headers, content=body)
            try:
                answer = await self._client.send(sent, stream=True)
            except httpx2.ConnectError:
                continue
            self.served.append(port)
            return StreamingResponse(
                answer.aiter_raw(), answer.status_code, dict(answer.headers.items())
            )
        return Response("no replica is there", 503)


# --- the demonstration ---------------------------------------------------------------------------


def model(request: CreateMessageRequestParams) -> Line:
    """What the client's model says: measure five places, one after the other."""
    done = sum(message.role == "assistant" for message in request.messages)
    return use("measure", place=f"place {done + 1}") if done < STEPS else "All measured."


def killer(replicas: dict[int, subprocess.Popen[bytes]]) -> ScriptedProvider:
    """A model in whose third answer the process is killed that measured last."""

    def answer(request: CreateMessageRequestParams) -> Line:
        measured = re.findall(r"by process (\d+)", str(request.messages))
        if len(measured) == 3 and len(replicas) == 2:
            pid = int(measured[-1])
            os.kill(pid, signal.SIGKILL)
            replicas.pop(pid).wait()
            print(f"killed process {pid}, which measured last")
        return model(request)

    return ScriptedProvider(answer, repeat=True)


async def demonstrate(url: str) -> None:
    async with replicated(url) as (address, replicas, proxy):
        await call(address, "surveyor", ScriptedProvider(model, repeat=True))
        print(f"by rounds: {len(proxy.served)} requests, to {len(set(proxy.served))} processes")
        await call(address, "survey", killer(replicas))
        print("as a task: taken over by the process that was left")
    async with replicated(url) as (address, replicas, _), Client(address) as client:
        pid = await ask(client, "set_out", id="expedition 1")
        await anyio.sleep(0.4)  # it measures for half a second
        os.kill(pid, signal.SIGKILL)
        replicas.pop(pid).wait()
        print(f"killed process {pid}, which had set out")
        measured = await ask(client, "come_back", id="expedition 1")
        print(*measured, sep="\n")
        print("as a durable run: taken over by the process that was left")


async def ask(client: Client, name: str, **arguments: Any) -> Any:
    """What a tool that needs no model gives."""
    result = await client.call_tool(name, arguments)
    assert result.structured_content is not None, result
    return result.structured_content["result"]


@asynccontextmanager
async def replicated(
    url: str,
) -> AsyncGenerator[tuple[str, dict[int, subprocess.Popen[bytes]], RoundRobin]]:
    """Two processes of the server behind a proxy: its address, the processes, and the proxy."""
    ports = [free_port(), free_port()]
    replicas = start(url, ports)
    try:
        for port in ports:
            await answers(port)
        proxy = RoundRobin(ports)
        async with listening(proxy) as address:
            yield address, replicas, proxy
    finally:
        for process in replicas.values():
            process.kill()
            process.wait()


async def call(address: str, name: str, provider: ScriptedProvider) -> None:
    """Call a tool as a client that can be asked, and print what came of it."""
    client = Client(
        address,
        sampling_callback=sampling_callback(provider),
        sampling_capabilities=TOOLS,
        extensions=[FollowTasks()] if name == "survey" else None,
    )
    async with client:
        result = await client.call_tool(name, {"prompt": "Measure five places."})
    print(f"{name}: {result.structured_content}")


# --- processes and ports -------------------------------------------------------------------------


def start(url: str, ports: Sequence[int]) -> dict[int, subprocess.Popen[bytes]]:
    """The processes of the server, by their ids."""
    environment = {**os.environ, "STATE_KEY": os.urandom(32).hex()}
    commands = [[sys.executable, __file__, url, str(port)] for port in ports]
    started = [subprocess.Popen(command, env=environment) for command in commands]
    return {process.pid: process for process in started}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def answers(port: int) -> None:
    """Wait until somebody listens there."""
    with anyio.fail_after(30):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            except OSError:
                await anyio.sleep(0.05)


@asynccontextmanager
async def listening(app: RoundRobin) -> AsyncGenerator[str]:
    """Serve ``app`` on a free port; gives the address of the MCP server behind it."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="error", lifespan="off")
    serving = uvicorn.Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(serving.serve)
        await answers(port)
        yield f"http://127.0.0.1:{port}/mcp"
        serving.should_exit = True


def main() -> None:
    url, *port = sys.argv[1:] or [f"sqlite:///{tempfile.mkdtemp()}/tasks.db"]
    if port:
        server(url).run("streamable-http", port=int(port[0]))
    else:
        anyio.run(demonstrate, url)


if __name__ == "__main__":
    main()
