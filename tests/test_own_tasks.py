"""Functions that start tasks of asyncio's own, which belong to no task group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
from mcp.server.mcpserver import Context, MCPServer

from agentloop import Agent, RunResult, gather
from agentloop.mcp import resumable
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from tests.carriers.functions import asked

Started = list[asyncio.Task[RunResult[str]]]
Awaits = Callable[[Started], Awaitable[object]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def gathered(tasks: Started) -> None:
    await gather(*tasks)


async def waited_for(tasks: Started) -> None:
    await asyncio.wait(tasks)


async def shielded(tasks: Started) -> None:
    await asyncio.gather(*map(asyncio.shield, tasks))


async def as_they_end(tasks: Started) -> None:
    for ended in asyncio.as_completed(tasks):
        await ended


@pytest.mark.parametrize("carrier", ["push", "rounds"])
@pytest.mark.parametrize("awaits", [gathered, waited_for, shielded, as_they_end])
async def test_runs_in_tasks_share_a_round_and_leave_nothing_behind(
    awaits: Awaits, carrier: str
) -> None:
    """Whatever waits for the tasks of a function, their asks leave together, and once the call is
    over none of the tasks is there, though a round was left while they waited for the model."""
    begun: Started = []
    agent = Agent("agent")

    async def play(ctx: Context) -> list[str]:
        tasks = [asyncio.create_task(agent.run(f"part {part}")) for part in range(3)]
        begun.extend(tasks)
        await awaits(tasks)
        return [task.result().text for task in tasks]

    server = MCPServer("tasks", log_level="CRITICAL")
    server.add_tool(resumable(play), name="play")
    model = ScriptedProvider(lambda request: f"{asked(request)[0]} is done", repeat=True)
    with anyio.fail_after(5):
        async with MockClient(server, model, carrier=carrier) as client:  # pyright: ignore[reportArgumentType]
            result = await client.call_tool("play")
            await anyio.wait_all_tasks_blocked()

    assert result.structured_content == {"result": [f"part {n} is done" for n in range(3)]}
    assert client.rounds == (1 if carrier == "rounds" else 0)
    assert [task for task in begun if not task.done()] == []
