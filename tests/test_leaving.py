"""At the end of a round the function is left, whatever it does about being told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from mcp.server.mcpserver import Context, MCPServer

from agentloop import Agent, gather, once, tool
from agentloop.errors import DefinitionError
from agentloop.mcp import Tasks, resumable
from agentloop.store import MemoryStore
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.carriers.functions import asked
from tests.leaks import Leaks

agent = Agent("agent")
lead = Agent("lead", tools=[agent.as_tool(name="helper")])

T = TypeVar("T")
Function = Callable[[], Awaitable[Any]]


def says(request: Any) -> Any:
    """What is asked is done; one who has a helper asks it first."""
    prompt, replies = asked(request)
    if request.tools and not replies:
        return use("helper", id="h", prompt=f"help {prompt}")
    return f"{prompt} is done"


async def called(function: Function, carrier: str, **options: Any) -> tuple[Any, MockClient]:
    """What a call of ``function`` gives; nothing is left of it."""

    async def play(ctx: Context) -> Any:
        return await function()

    tasks = Tasks(MemoryStore(), poll=0.01, look_every=0.05)
    server = MCPServer("leaving", log_level="ERROR", extensions=[tasks], lifespan=tasks.lifespan())
    if carrier == "stored":
        options["store"] = MemoryStore()
    if carrier == "task":
        options["task"] = "always"
    server.add_tool(resumable(**options)(play), name="play")
    model = ScriptedProvider(says, repeat=True)
    wire: Any = "rounds" if carrier == "stored" else carrier
    leaks = Leaks()
    client = MockClient(server, model, carrier=wire)
    result = None
    with anyio.fail_after(8):
        async with client:
            result = await client.call_tool("play")
    await leaks.none_within(3)
    return result, client


# --- functions that hold on to what they do -----------------------------------------------------


async def in_shield(work: Awaitable[T]) -> T:
    with anyio.CancelScope(shield=True):
        return await work
    raise AssertionError("nobody cancels the shield itself")


async def shielded() -> list[str]:
    return [(await in_shield(agent.run("this"))).text]


async def shielded_branches() -> list[str]:
    runs = await in_shield(gather(agent.run("this"), agent.run("that")))
    return [run.text for run in runs]


async def shielded_group() -> list[str]:
    said = ["", ""]

    async def ask(number: int) -> None:
        said[number] = (await in_shield(agent.run(f"part {number}"))).text

    async with anyio.create_task_group() as group:
        for number in range(2):
            group.start_soon(ask, number)
    return said


async def shielded_beside_one_that_is_not() -> list[str]:
    runs = await gather(in_shield(agent.run("this")), agent.run("that"))
    return [run.text for run in runs]


async def shielded_lead() -> list[str]:
    """What waits is in a tool of what is shielded."""
    return [(await in_shield(lead.run("this"))).text]


async def shielded_once() -> list[str]:
    async def ask() -> str:
        return (await in_shield(agent.run("this"))).text

    return [await once("asked", ask), await once("again", ask)]


async def shielded_tool() -> list[str]:
    @tool
    async def helper(prompt: str) -> str:
        """Help."""
        return (await in_shield(agent.run(prompt))).text

    return [(await Agent("lead", tools=[helper]).run("this")).text]


async def in_a_thread() -> list[str]:
    def work() -> str:
        return anyio.from_thread.run(agent.run, "this").text

    return [await anyio.to_thread.run_sync(work)]


async def cleans_up() -> list[str]:
    try:
        return [(await agent.run("this")).text]
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)


# --- functions that take being told to leave for something else ---------------------------------


async def swallows() -> list[str]:
    try:
        return [(await agent.run("this")).text]
    except BaseException:  # noqa: BLE001
        return ["never"]


async def swallows_and_goes_on() -> list[str]:
    said: list[str] = []
    for part in ("this", "that"):
        for _ in range(3):
            try:
                said.append((await agent.run(part)).text)
                break
            except BaseException:  # noqa: BLE001
                continue
    return said


async def swallows_in_a_shield() -> list[str]:
    return await in_shield(swallows_and_goes_on())


async def swallows_and_asks_once() -> list[str]:
    made: list[str] = []
    try:
        said = (await agent.run("this")).text
    except BaseException:  # noqa: BLE001
        said = ""
    return [await once("made", lambda: made.append(said) or said)]


async def swallows_in_a_tool() -> list[str]:
    """The tool must not have a result, as it has not got what it waited for."""

    @tool
    async def helper(prompt: str) -> str:
        """Help."""
        try:
            return (await agent.run(prompt)).text
        except BaseException:  # noqa: BLE001
            return "no help"

    result = await in_shield(Agent("lead", tools=[helper]).run("this"))
    return [result.text, result.messages[2].model_dump_json()]


async def makes_an_error_of_it() -> list[str]:
    try:
        return [(await agent.run("this")).text]
    except BaseException as error:
        raise RuntimeError("the agent did not answer") from error


HOLDING = (
    shielded,
    shielded_branches,
    shielded_group,
    shielded_beside_one_that_is_not,
    shielded_lead,
    shielded_once,
    shielded_tool,
    in_a_thread,
    cleans_up,
    swallows,
    swallows_and_goes_on,
    swallows_in_a_shield,
    swallows_and_asks_once,
    swallows_in_a_tool,
    makes_an_error_of_it,
)


@pytest.mark.parametrize("carrier", ["rounds", "stored", "task"])
@pytest.mark.parametrize("function", HOLDING)
async def test_the_call_is_what_it_is_over_push(function: Function, carrier: str) -> None:
    """Shields, threads, clean-up and swallowed cancellation change neither what a call gives nor
    what its model is asked, and leave nothing behind."""
    there, push = await called(function, "push")
    here, client = await called(function, carrier)

    assert not there.is_error
    assert here.content == there.content
    assert written(client) == written(push)


def written(client: MockClient) -> list[list[str]]:
    """What a client's model was asked, in one order: trio has none for what runs together."""
    return sorted([m.model_dump_json() for m in ask.messages] for ask in client.asks)


# --- functions that do not end ------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["rounds", "stored", "task"])
@pytest.mark.parametrize("way", ["again", "sleeps", "thread"])
async def test_one_that_does_not_end_is_left_behind(
    way: str, carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client is not kept waiting, its author is told why and where, and what it does in the end
    counts for nothing."""
    blocked = threading.Event()

    async def again() -> str:
        while not blocked.is_set():
            try:
                return (await agent.run("this")).text
            except BaseException:  # noqa: BLE001
                continue
        return "late"

    async def sleeps() -> str:
        try:
            return (await agent.run("this")).text
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    async def thread() -> str:
        try:
            return (await agent.run("this")).text
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(blocked.wait)

    function: Function = {"again": again, "sleeps": sleeps, "thread": thread}[way]
    let_go = threading.Timer(1, blocked.set)
    let_go.start()
    result, client = await called(function, carrier, leave_seconds=0.2)
    let_go.join()

    assert result.is_error
    assert "did not end within 0.2 s of being cancelled" in caplog.text
    assert f"it was at {__file__}:" in caplog.text
    assert client.asks == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("carrier", ["push", "rounds", "stored", "task"])
async def test_one_that_waits_for_a_cancelled_task_fails_alone(carrier: str) -> None:
    """What such a task raises looks like the call being cancelled, and must not end the session."""

    async def function() -> None:
        task = asyncio.create_task(anyio.sleep(60))
        task.cancel()
        await task

    result, _ = await called(function, carrier)

    assert result.is_error


@pytest.mark.parametrize("function", [shielded, in_a_thread, shielded_lead])
async def test_a_client_that_cancels_is_not_kept_waiting(function: Function) -> None:
    """Whoever cancels a call while its function is parked behind a shield gets rid of it."""
    begun = anyio.Event()

    async def play(ctx: Context) -> Any:
        async def wait() -> None:
            begun.set()
            await anyio.sleep(60)

        await gather(function(), wait())  # which keeps the function from being left

    server = MCPServer("leaving", log_level="CRITICAL")
    server.add_tool(resumable(play), name="play")
    leaks = Leaks()
    with anyio.fail_after(8):
        async with (
            MockClient(server, ScriptedProvider(says, repeat=True)) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(client.call_tool, "play")
            await begun.wait()
            group.cancel_scope.cancel()
    await leaks.none_within(3)


async def test_a_task_that_nobody_waits_for_runs_no_agent() -> None:
    """Over rounds nobody answers it once its call is over: it is told so, and does not wait."""
    told: list[BaseException] = []

    async with anyio.create_task_group() as group:
        over = anyio.Event()

        async def late() -> None:
            await over.wait()
            try:
                await agent.run("late")
            except DefinitionError as error:
                told.append(error)

        async def function() -> str:
            group.start_soon(late)
            return "done"

        said = await _text_beside(function)
        over.set()

    assert said == "done"
    assert "does not wait for" in str(told[0])


async def _text_beside(function: Callable[[], Awaitable[str]]) -> str:
    """As :func:`called`, where a task goes on after the call."""
    server = MCPServer("leaving", log_level="CRITICAL")

    async def play(ctx: Context) -> str:
        return await function()

    server.add_tool(resumable(play), name="play")
    client = MockClient(server, ScriptedProvider(says, repeat=True))
    async with client:
        result = await client.call_tool("play")
    return getattr(result.content[0], "text", "")
