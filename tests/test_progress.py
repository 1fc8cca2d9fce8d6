"""What a client sees while a call is served, and what is left when it ends or goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog.testing
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer

from agentloop import Agent, Limits, gather
from agentloop.mcp import mount, resumable
from agentloop.mcp.progress import BURST, Progress
from agentloop.strays import left_behind
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use
from tests.carriers.processes import http_process, stdio_process
from tests.carriers.stage import LINGERING, stage

CALL = [use("add", a=1, b=2)]
both_eras = pytest.mark.parametrize("carrier", ["push", "rounds"])

# The SDK's HTTP client leaves generators of httpx2 unfinished, which trio complains about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object (EventSource|Response|PoolByteStream)"
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep tracebacks of failures that are wanted from being drawn, which takes long."""
    with structlog.testing.capture_logs():
        yield


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Seen:
    """Progress as it arrives: its numbers, one list for each request, and its messages."""

    def __init__(self) -> None:
        self.numbers: list[list[float]] = [[]]
        self.messages: list[str] = []

    async def __call__(self, number: float, total: float | None, message: str | None) -> None:
        if self.numbers[-1] and number <= self.numbers[-1][-1] and number == 1:
            self.numbers.append([])
        self.numbers[-1].append(number)
        self.messages.append(message or "")


def rising(numbers: list[float]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


@both_eras
async def test_one_for_each_ask_and_each_tool(carrier: Any) -> None:
    """Progress tells of every answer and every tool result, and rises within a request."""
    server = MCPServer("host", log_level="CRITICAL")
    mount(server, Agent("calc", tools=[add]))
    model = ScriptedProvider([*CALL, use("nothing"), *CALL], CALL, "three")
    seen = Seen()

    async with MockClient(server, model, carrier=carrier) as client:
        await client.client.call_tool("calc", {"prompt": "go"}, progress_callback=seen)
        await anyio.wait_all_tasks_blocked()

    assert sorted(seen.messages[1:4]) == ["calc: add", "calc: add", "calc: nothing failed"]
    assert [seen.messages[0], *seen.messages[4:]] == [
        "calc: step 1",
        "calc: step 2",
        "calc: add",
        "calc: step 3",
    ]
    assert all(rising(numbers) for numbers in seen.numbers)
    assert len(seen.numbers) == (1 if carrier == "push" else 3)


@both_eras
async def test_agents_inside_agents_report_too(carrier: Any) -> None:
    """Runs at the same time and below each other count together."""
    server = MCPServer("host", log_level="CRITICAL")
    sub = Agent("sub")
    lead = Agent("lead", tools=[sub.as_tool()])

    def says(request: Any) -> Line:
        if request.tools and len(request.messages) == 1:
            return [use("sub", id=f"s{n}", prompt=f"{n}") for n in range(2)]
        return "done"

    async def play(ctx: Context) -> None:
        await gather(lead.run("a"), sub.run("b"))

    server.add_tool(resumable(play))
    model = ScriptedProvider(says, repeat=True)
    async with MockClient(server, model, carrier=carrier) as client:
        await client.call_tool("play")
        await anyio.wait_all_tasks_blocked()

    assert sorted(client.progress) == [
        *["lead: step 1", "lead: step 2"],
        *["lead: sub"] * 2,
        *["sub: step 1"] * 3,
    ]


@both_eras
async def test_a_burst_is_bounded(carrier: Any) -> None:
    """Of very many at once, some are left out; the last one is not, and none comes twice."""
    calls = 150
    server = MCPServer("host", log_level="CRITICAL")
    limits = Limits(calls_per_reply=calls, tool_calls=calls + 1)
    mount(server, Agent("calc", tools=[add], limits=limits))
    model = ScriptedProvider([*CALL] * calls, "done")
    seen = Seen()

    async with MockClient(server, model, carrier=carrier) as client:
        began = time.monotonic()
        await client.client.call_tool("calc", {"prompt": "go"}, progress_callback=seen)
        allowed = BURST + 10 * (time.monotonic() - began) + 5
        await anyio.wait_all_tasks_blocked()

    assert len(seen.messages) <= allowed * len(seen.numbers)
    assert all(rising(numbers) for numbers in seen.numbers)
    assert seen.messages[-1] == "calc: step 2"


@both_eras
async def test_none_after_the_end(carrier: Any) -> None:
    """Once the result is there, progress is over."""
    server = MCPServer("host", log_level="CRITICAL")
    limits = Limits(calls_per_reply=80, tool_calls=81)
    mount(server, Agent("calc", tools=[add], limits=limits))
    seen = Seen()

    async with MockClient(
        server, ScriptedProvider([*CALL] * 80, "done"), carrier=carrier
    ) as client:
        await client.client.call_tool("calc", {"prompt": "go"}, progress_callback=seen)
        await anyio.wait_all_tasks_blocked()
        told = len(seen.messages)
        await anyio.sleep(0.3)

    assert len(seen.messages) == told


async def test_what_is_being_sent_still_arrives() -> None:
    """A call does not end in the middle of a notification."""

    class SlowSession:
        def __init__(self) -> None:
            self.sending = anyio.Event()
            self.sent: list[float] = []

        async def report_progress(self, number: float, total: None, message: str) -> None:
            self.sending.set()
            await anyio.sleep(0.02)
            self.sent.append(number)

    session = SlowSession()
    progress = Progress(session, None)  # type: ignore[arg-type]
    agent = Agent("calc")
    await agent.run("go", provider=ScriptedProvider("hi"), on_event=progress)

    await session.sending.wait()
    await progress.flush()
    await progress.stop()
    assert session.sent == [1]


def tasks() -> int:
    """How many tasks are alive in this event loop."""
    try:
        import asyncio

        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


@both_eras
@pytest.mark.parametrize("how", ["done", "denied", "cancelled", "timed out tool", "error"])
async def test_nothing_outlives_its_call(carrier: Any, how: str) -> None:
    """However a call ends, no task of it is left in the server."""
    server = MCPServer("host", log_level="CRITICAL")

    async def hang() -> str:
        await anyio.sleep_forever()
        return "never"

    def crash() -> str:
        raise RuntimeError("no")

    async def play(ctx: Context) -> str:
        limits = Limits(seconds=0.2)
        agent = Agent("worker", tools=[add, hang, crash], limits=limits)
        runs = await gather(*(agent.run(f"part {part}") for part in range(3)))
        if how == "error":
            raise ValueError("of the author's")
        return runs[0].output

    server.add_tool(resumable(play))

    def says(request: Any) -> Line:
        if len(request.messages) > 1:
            return "done"
        tool = "hang" if how in ("cancelled", "timed out tool") else "crash"
        return [use("add", id="a", a=1, b=2), use(tool, id="b")]

    model = ScriptedProvider(says, repeat=True)
    denies = 5 if how == "denied" else False
    async with MockClient(server, model, carrier=carrier, denies=denies) as client:
        before = tasks()
        with anyio.move_on_after(0.1 if how == "cancelled" else 10), suppress(MCPError):
            await client.call_tool("play")
        await anyio.wait_all_tasks_blocked()
        assert tasks() == before

    assert left_behind() == 0


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers in processes of their own note what happens."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def http_url(records: Path) -> Iterator[str]:
    """A stage that is served over HTTP."""
    with http_process(records) as url:
        yield url


@pytest.mark.parametrize(
    ("carrier", "transport"), [*product(["push", "rounds"], ["memory", "stdio", "http"])]
)
async def test_cancelling_stops_the_tools(
    carrier: Any, transport: str, anyio_backend_name: str, http_url: str, records: Path
) -> None:
    """Within a second of the client's cancelling, every tool of the call has ended."""
    process = stdio_process(anyio_backend_name, records)
    server = {"memory": stage(records), "stdio": process, "http": http_url}[transport]
    journal = records / f"{carrier}-{transport}-{anyio_backend_name}"
    call = {"name": LINGERING.name, "call": journal.name}

    async def until(text: str, times: int) -> None:
        while not journal.exists() or journal.read_text().count(text) < times:  # noqa: ASYNC110
            await anyio.sleep(0.01)

    async with MockClient(server, LINGERING.model(), carrier=carrier) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "play", call)
            with anyio.fail_after(20):
                await until("linger begins", 2)
            group.cancel_scope.cancel()
        with anyio.fail_after(1):
            await until("linger ends", 2)
