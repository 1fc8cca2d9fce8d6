"""What crosses the wire: bytes of a whole tool call over HTTP, both directions, by carrier.

A real server and a real client on the loopback, with a proxy between them that counts every byte
of the call, HTTP headers included. Each step calls a tool that gives 1 KiB of text, of one of these
kinds:

- *letters*, *base64*, *hex*: random characters of that alphabet, of which nobody can take away
  more than chance put in: 5.7, 6 and 4 bits a character;
- *prose*: English that does not repeat itself, from the reference that comes with Python;
- *listing*: English as programs write it, lines that differ in a name and some figures.

*push* is the same for everybody, since each ask carries the history. Over *rounds* the state rides
along, out and back: sealed by the SDK as it comes, by ``StateCodec``, and with that behind
Starlette's ``GZipMiddleware`` besides, whose answers the SDK's client takes compressed; it does
nothing for push, which streams. That last one is what ``agentloop serve`` does. *by hand* keeps the
transcript in the state as plain JSON.
"""

from __future__ import annotations

import random
import string
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pydoc_data.topics import topics
from typing import Any

import anyio
import anyio.abc
import mcp_memory
import steps
import uvicorn
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    InputRequiredResult,
    SamplingCapability,
    SamplingToolsCapability,
    TextContent,
    ToolUseContent,
)
from measuring import main, table
from starlette.middleware.gzip import GZipMiddleware

from agentloop import Agent, Limits
from agentloop.mcp import StateCodec, resumable

KINDS = ("letters", "base64", "hex", "prose", "listing")
STEPS = (1, 5, 10, 20, 30, 40)
SIZE = 1024

chance = random.Random(7)
prose = "\n".join(topics[name] for name in sorted(topics))


async def look(kind: str, number: int) -> str:
    """Look something up."""
    if kind == "prose":
        start = number * 7919 % (len(prose) - SIZE)
        return prose[start : start + SIZE].encode("ascii", "replace").decode()
    if kind == "listing":
        lines = (
            f"The file report-{chance.randrange(1000)}.txt has {chance.randrange(10_000)} lines "
            f"and was last changed {chance.randrange(2, 60)} days ago.\n"
            for _ in range(20)
        )
        return "".join(lines)[:SIZE]
    alphabet = {
        "letters": string.ascii_letters,
        "base64": string.ascii_letters + string.digits + "+/",
        "hex": "0123456789abcdef",
    }[kind]
    return "".join(chance.choices(alphabet, k=SIZE))


class Model(steps.Model):
    """Looks up one thing of a kind at each step."""

    def __init__(self, kind: str, steps: int) -> None:
        super().__init__(steps)
        self._kind = kind

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        said = await super().sample(request)
        return said.model_copy(update={"content": [self._same(block) for block in said.content]})

    def _same(self, block: Any) -> Any:
        if not isinstance(block, ToolUseContent):
            return block
        arguments = {"kind": self._kind, "number": self._left}
        return ToolUseContent(name="look", id=block.id, input=arguments)


AGENT = Agent("looker", tools=[look], limits=Limits(steps=None, tool_calls=None, rounds=None))


@resumable
async def agentloop(ctx: Context[Any, Any]) -> str:
    return (await AGENT.run(steps.PROMPT)).text


async def by_hand(ctx: Context[Any, Any]) -> str | InputRequiredResult:
    return await mcp_memory.one_round(ctx, lambda state: state.encode(), lambda data: data.decode())


def made(security: RequestStateSecurity | None) -> MCPServer:
    """A server with both tools."""
    server = MCPServer("wire", log_level="CRITICAL", request_state_security=security)
    server.add_tool(agentloop)
    server.add_tool(by_hand)
    return server


class Counted:
    """A proxy in front of a port; ``total`` counts the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self.total = 0
        self._port = port

    async def serve(self, client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", self._port) as server:

            async def pass_on(a: anyio.abc.SocketStream, b: anyio.abc.SocketStream) -> None:
                try:
                    async for data in a:
                        self.total += len(data)
                        await b.send(data)
                    await b.send_eof()
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    group.cancel_scope.cancel()

            async with anyio.create_task_group() as group:
                group.start_soon(pass_on, client, server)
                group.start_soon(pass_on, server, client)


@asynccontextmanager
async def counted_server(
    *, security: RequestStateSecurity | None, compresses: bool
) -> AsyncIterator[tuple[str, Counted]]:
    """The server's address behind a counting proxy."""
    app = made(security).streamable_http_app()
    if compresses:
        app.add_middleware(GZipMiddleware)
    http = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    async with anyio.create_task_group() as group:
        group.start_soon(http.serve)
        while not http.started:  # noqa: ASYNC110  uvicorn has nothing to wait on
            await anyio.sleep(0.01)
        counted = Counted(http.servers[0].sockets[0].getsockname()[1])
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        group.start_soon(listener.serve, counted.serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}/mcp", counted
        group.cancel_scope.cancel()


async def kilobytes(url: str, counted: Counted, mode: str, tool: str, kind: str, n: int) -> float:
    """What one call of ``tool`` with ``n`` steps takes."""
    chance.seed(n)
    model = Model(kind, n)

    async def answer(
        context: object, params: CreateMessageRequestParams
    ) -> CreateMessageResultWithTools:
        return await model.sample(params)

    async with Client(
        url,
        mode=mode,
        sampling_callback=answer,
        sampling_capabilities=SamplingCapability(tools=SamplingToolsCapability()),
        input_required_max_rounds=n + 2,
    ) as client:
        await client.list_tools()  # else the client lists them inside of the call
        before = counted.total
        result = await client.call_tool(tool)
        said = result.content[0]
        assert isinstance(said, TextContent)
        assert said.text == "Done.", said.text
        return (counted.total - before) / 1000


async def measure() -> dict[str, dict[str, dict[int, float]]]:
    """kB by what it is, kind and steps."""
    took: dict[str, dict[str, dict[int, float]]] = {}
    codec = RequestStateSecurity(codec=StateCodec())
    variants = {
        "push": ("legacy", "agentloop", STEPS, None, False),
        "rounds": ("auto", "agentloop", STEPS, None, False),
        "codec": ("auto", "agentloop", STEPS, codec, False),
        "gzip": ("auto", "agentloop", STEPS, codec, True),
        "by hand": ("auto", "by_hand", (10,), None, False),
    }
    for name, (mode, tool, numbers, security, compresses) in variants.items():
        async with counted_server(security=security, compresses=compresses) as (url, counted):
            took[name] = {
                kind: {n: await kilobytes(url, counted, mode, tool, kind, n) for n in numbers}
                for kind in KINDS
            }
    return took


def report() -> str:
    warnings.filterwarnings("ignore", message=".*SEP-2577.*")
    mcp_memory.add, mcp_memory.AddArguments = look, Look
    took = anyio.run(measure)
    push = took.pop("push")
    ten = [
        [
            kind,
            f"{push[kind][10]:.0f}",
            *(f"{kb[kind][10]:.0f} ({kb[kind][10] / push[kind][10]:.2f})" for kb in took.values()),
        ]
        for kind in KINDS
    ]
    took.pop("by hand")
    growth = [
        [
            kind,
            *(" / ".join(f"{kb[kind][n]:.0f}" for kb in (push, *took.values())) for n in STEPS),
            " / ".join(f"{squared(kb[kind]):.2f}" for kb in (push, *took.values())),
        ]
        for kind in KINDS
    ]
    return "\n\n".join(
        [
            "## On the wire: a tool call with 1 KiB results, over HTTP, both ways",
            "Ten steps, in kB, and as a multiple of push:",
            table(["results", "push", "rounds", "StateCodec", "and gzip", "by hand"], ten),
            "By number of steps (the columns), in kB, push / rounds / StateCodec / and gzip:",
            table(["results", *map(str, STEPS), "kB per step²"], growth),
        ]
    )


def squared(kb: dict[int, float]) -> float:
    """How what a step takes grows from one step to the next, in kB."""
    first, last = (kb[20] - kb[10]) / 10, (kb[40] - kb[30]) / 10
    return (last - first) / 20


class Look(steps.BaseModel):
    kind: str
    number: int


if __name__ == "__main__":
    sys.exit(main(report))
