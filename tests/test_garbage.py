"""A run that is over frees all that it had at once, and waits for no garbage collector.

That comes late, looks at everything, and holds the event loop meanwhile.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import SamplingMessage

from agentloop import Agent, Limits, tool
from agentloop.mcp import resumable
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use

pytestmark = pytest.mark.timeout(60)


async def garbage_of(work: Callable[[], Awaitable[None]]) -> Counter[str]:
    """What ``work`` leaves to the garbage collector, by type: ours, and messages."""
    for _ in range(2):  # what is made once stays
        await work()
    await anyio.sleep(0.02)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await work()
        await anyio.sleep(0.02)
        gc.collect()
        return Counter(type(item).__name__ for item in gc.garbage if _counts(item))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _counts(item: object) -> bool:
    return type(item).__module__.startswith("agentloop") or isinstance(item, SamplingMessage)


@tool
async def wait(n: int) -> int:
    """Wait."""
    await anyio.sleep(0.001)
    return n


@tool
async def count(n: int) -> int:
    """Count."""
    return n


@tool
def block(n: int) -> int:
    """Block."""
    return n


@tool
async def fail(n: int) -> int:
    """Fail."""
    await anyio.sleep(0.001)
    raise ValueError(n)


@tool(timeout=0.01)
async def late(n: int) -> int:
    """Be late."""
    await anyio.sleep(60)
    return n


TOOLS = [wait, count, block, fail, late]


@pytest.mark.parametrize("names", [*([item.name] for item in TOOLS), [t.name for t in TOOLS]])
async def test_a_run_leaves_nothing(names: list[str]) -> None:
    agent = Agent("agent", tools=TOOLS)

    async def run() -> None:
        turn: list[Any] = [use(name, n=number) for number, name in enumerate(names)]
        result = await agent.run("go", provider=ScriptedProvider(turn, "done"))
        assert result.text == "done"

    assert await garbage_of(run) == {}


async def test_a_run_whose_ask_takes_too_long_leaves_nothing() -> None:
    class Slow:
        name = "slow"

        async def sample(self, request: Any) -> Any:
            await anyio.sleep(60)

    agent = Agent("agent", limits=Limits(ask_seconds=0.01))

    async def run() -> None:
        assert (await agent.run("go", provider=Slow())).error

    assert await garbage_of(run) == {}


server = MCPServer("server")
inner = Agent("inner", tools=[wait, count])


@server.tool()
@resumable
async def ask(ctx: Context[Any, Any]) -> str:
    # One after the other: a task group of anyio's that is cancelled is garbage itself.
    return ", ".join([(await inner.run(prompt)).text for prompt in ("one", "two")])


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_a_served_call_leaves_nothing(carrier: Any) -> None:
    class Model:
        name = "model"

        async def sample(self, request: Any) -> Any:
            if len(request.messages) > 1:
                return reply("done")
            return reply(use("wait", id="a", n=1), use("count", id="b", n=2))

    async with MockClient(server, Model(), carrier=carrier) as client:

        async def call() -> None:
            result = await client.call_tool("ask")
            assert result.structured_content == {"result": "done, done"}

        assert await garbage_of(call) == {}
