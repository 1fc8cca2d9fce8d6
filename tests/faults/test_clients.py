"""Clients that deny, go away, answer late, twice, or something else, or may not what they ask."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.stdio import StdioServerParameters
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError as HostToolError
from mcp.server.request_state import RequestStateSecurity

from agentloop import Agent, Limits, tool
from agentloop.events import Event, RunEnded, ToolEnded
from agentloop.mcp import mount, tools_from
from agentloop.run import Stop
from agentloop.store import MemoryStore
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.http import line, post_of, result_of, serving_http, session_of_2025
from tests.faults.kit import (
    GO,
    PUSH,
    ROUNDS,
    STORED,
    Model,
    calls,
    check_history,
    play,
    says,
    serving,
    text,
)
from tests.faults.table import IN_ROUNDS
from tests.faults.wire import SAMPLING, Refuse, Rejected, Silence, Wire, connected

pytestmark = pytest.mark.usefixtures("no_leaks")

CANARY = "canary-4711"


class Adder:
    """An agent that adds, and what it was called with."""

    def __init__(self, **limits: Any) -> None:
        self.calls: list[int] = []

        async def add(a: int) -> int:
            """Add one."""
            self.calls.append(a)
            return a + 1

        self.agent = Agent("worker", tools=[add], limits=Limits(**limits))


def call(a: int) -> dict[str, Any]:
    return calls("add", id=f"c{a}", a=a)


# --- no ----------------------------------------------------------------------------------------


@pytest.mark.fault("B53", on=(PUSH,))
async def test_the_user_rejects_the_second_ask(carrier: str) -> None:
    adder = Adder()
    played = await play(carrier, adder.agent, [use("add", a=1)], Refuse(-1, "no"))
    assert (played.stop, played.error) == (Stop.DENIED, "denied")
    assert len(played.requests) == 2
    assert played.results == [("2", False)]
    assert played.result is not None
    assert played.result["isError"]
    assert "denied" in played.result["content"][0]["text"]


@pytest.mark.fault("B53", on=IN_ROUNDS)
async def test_the_user_rejects_the_second_round(carrier: str) -> None:
    adder = Adder()
    with pytest.raises(Rejected, match="no"):
        await play(carrier, adder.agent, [use("add", a=1)], Refuse(-1, "no"))
    assert adder.calls == [1]


# --- gone --------------------------------------------------------------------------------------


class Slow:
    """A tool whose calls can be watched from another thread."""

    def __init__(self, seconds: float = 30) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.finished = 0

        @tool
        async def slow() -> str:
            """Take a while."""
            self.begun.set()
            try:
                await anyio.sleep(seconds)
                self.finished += 1
            finally:
                self.ended.set()
            return "done"

        self.agent = Agent("worker", tools=[slow])


async def until(happened: Callable[[], bool], seconds: float = 1) -> None:
    """Wait for what happens in another task or thread. Raises ``TimeoutError``."""
    with anyio.fail_after(seconds):
        while not happened():  # noqa: ASYNC110  threads set no event of ours
            await anyio.sleep(0.005)


@asynccontextmanager
async def calling(wire: Wire) -> AsyncGenerator[None]:
    """While a call goes on whose end nobody waits for."""

    async def call() -> None:
        with suppress(Rejected):
            await wire.call("worker", GO)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        yield
        group.cancel_scope.cancel()


@pytest.mark.fault("B54")
async def test_a_stream_that_closes_while_a_tool_runs(carrier: str) -> None:
    slow = Slow()
    model = Model([use("slow")])
    server = serving(slow.agent, carrier)
    async with connected(server, model.answer, modern=carrier != PUSH) as wire, calling(wire):
        await until(slow.begun.is_set, 3)
        await wire.close()
        await until(slow.ended.is_set)
    assert slow.finished == 0


@pytest.mark.fault("B54", on=(PUSH,))
async def test_a_stream_that_closes_while_an_ask_waits(carrier: str) -> None:
    ended: list[Event] = []
    server = serving(Adder().agent, carrier, on_event=ended.append)
    async with connected(server, Model(Silence).answer, modern=False) as wire, calling(wire):
        await until(lambda: bool(wire.asked))
        await wire.close()
        await until(lambda: any(isinstance(event, RunEnded) for event in ended))


# The SDK's HTTP server and client leave generators behind that trio complains about.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
@pytest.mark.fault("B54", on=IN_ROUNDS)
@pytest.mark.timeout(10)
async def test_a_response_that_is_closed_stops_the_tool(carrier: str) -> None:
    slow = Slow()
    server = serving(slow.agent, carrier)
    with serving_http(server.streamable_http_app) as url:
        async with httpx2.AsyncClient() as client:
            first = result_of(await client.post(url, **post_of("worker", GO)))
            ((key, _),) = first["inputRequests"].items()
            answers = {key: says(calls("slow"))}
            request = post_of("worker", GO, answers=answers, state=first["requestState"])
            async with anyio.create_task_group() as group:

                async def post() -> None:
                    await client.post(url, **request)

                group.start_soon(post)
                await until(slow.begun.is_set, 3)
                group.cancel_scope.cancel()
            await until(slow.ended.is_set)
            if carrier == STORED:  # and the round can be entered again
                slow.begun.clear()
                slow.ended.clear()
                with pytest.raises(httpx2.ReadTimeout):
                    await client.post(url, **request, timeout=0.3)
                await until(slow.begun.is_set)
                await until(slow.ended.is_set)
    assert slow.finished == 0


@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
@pytest.mark.fault("B54", on=(PUSH,))
@pytest.mark.timeout(10)
async def test_a_dropped_stream_of_2025_stops_nothing(carrier: str) -> None:
    """A disconnect is no cancellation there: the tool call goes on, and can be resumed."""
    slow = Slow(seconds=0.3)
    provider = ScriptedProvider([use("slow")], "done", repeat=True)
    server = serving(slow.agent, carrier, provider=provider)
    with serving_http(server.streamable_http_app) as url:
        async with httpx2.AsyncClient() as client:
            headers = await session_of_2025(client, url)
            request = line("tools/call", {"name": "worker", "arguments": GO}, id=2)
            with anyio.move_on_after(3):
                async with client.stream("POST", url, content=request, headers=headers) as stream:
                    assert stream.status_code == 200
                    await until(slow.begun.is_set, 2)
            await until(slow.ended.is_set, 2)
    assert slow.finished == 1


# --- late, twice -------------------------------------------------------------------------------


@pytest.mark.fault("B55", on=(PUSH,))
async def test_a_late_answer_and_a_second_one_are_ignored(carrier: str) -> None:
    adder = Adder(ask_seconds=0.2)
    ended: list[Any] = []
    server = serving(adder.agent, carrier, on_event=ended.append)
    async with connected(server, Model(Silence).answer, modern=False) as wire:
        result = await wire.call("worker", GO)
        assert result["isError"]
        asked = [json.loads(line) for line in wire.written]
        (id,) = [m["id"] for m in asked if m.get("method") == "sampling/createMessage"]
        await wire.send({"id": id, "result": says(call(1))})
        wire.answers = Model(says(call(2)), says(text("two"))).answer
    assert adder.calls == []

    async with connected(server, Model().answer, modern=False) as wire:

        async def twice(method: str, params: Any) -> Any:
            id = json.loads(wire.written[-1])["id"]
            await wire.send({"id": id, "result": says(call(len(wire.asked)))})
            return says(call(99)) if len(wire.asked) == 1 else says(text("done"))

        wire.answers = twice
        with anyio.move_on_after(1):
            await wire.call("worker", GO)
    assert 99 not in adder.calls
    assert adder.calls[0] == 1


@pytest.mark.fault("B55", on=(ROUNDS,))
async def test_an_answer_after_the_state_expired(carrier: str) -> None:
    adder = Adder()
    security = RequestStateSecurity(keys=[b"k" * 32], ttl=0.2)
    server = serving(adder.agent, carrier, security=security)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("worker", GO)
        await anyio.sleep(0.25)
        with pytest.raises(Rejected) as rejected:
            await wire.round(
                "worker", GO, answers={"0:0": says(call(1))}, state=first["requestState"]
            )
    assert (rejected.value.code, rejected.value.data) == (
        -32602,
        {"reason": "invalid_request_state"},
    )
    assert adder.calls == []


@pytest.mark.fault("B55", on=(STORED,))
async def test_a_second_answer_changes_nothing(carrier: str) -> None:
    adder = Adder()
    async with connected(serving(adder.agent, carrier), Model().answer, modern=True) as wire:
        first = await wire.round("worker", GO)
        state = first["requestState"]
        one = await wire.round("worker", GO, answers={"0:0": says(call(1))}, state=state)
        two = await wire.round("worker", GO, answers={"0:0": says(call(2))}, state=state)
    assert adder.calls == [1]
    assert one["inputRequests"] == two["inputRequests"]


# --- not allowed -------------------------------------------------------------------------------


@pytest.mark.fault("B59")
async def test_a_forged_call_of_a_tool_that_the_caller_may_not_use(carrier: str) -> None:
    deleted: list[str] = []
    server = MCPServer("faults", log_level="CRITICAL")

    @server.tool()
    async def delete(what: str, ctx: Context) -> str:
        """Delete something; for administrators."""
        if ctx.request_context.meta is None or "admin" not in str(ctx.request_context.meta):
            raise HostToolError("Not allowed.")
        deleted.append(what)
        return "gone"

    events: list[Event] = []
    agent = Agent("worker", tools=await tools_from(server, only={"delete"}))
    store = MemoryStore() if carrier == STORED else None
    mount(server, agent, on_event=events.append, store=store)
    model = ScriptedProvider([use("delete", what="all"), use("drop_tables")], "oh")
    wire = "push" if carrier == PUSH else "rounds"
    async with MockClient(server, model, carrier=wire) as client:  # type: ignore[arg-type]
        await client.call_tool("worker", GO)
    assert deleted == []
    told = [event for event in events if isinstance(event, ToolEnded)]
    assert {event.call.name for event in told} == {"delete", "drop_tables"}
    assert all(event.result.is_error for event in told)
    assert "Not allowed" in str([event.result for event in told])


@pytest.mark.fault("B61")
@pytest.mark.parametrize(
    ("declared", "missing"),
    [
        ({}, {"sampling": {"tools": {}}}),
        ({"sampling": {}}, {"sampling": {"tools": {}}}),
        ({"elicitation": {"form": {}}}, {"sampling": {"tools": {}}}),
    ],
)
async def test_a_capability_that_is_missing(carrier: str, declared: Any, missing: Any) -> None:
    adder = Adder()
    with pytest.raises(Rejected) as rejected:
        await play(carrier, adder.agent, capabilities=declared)
    assert rejected.value.code == -32021
    assert rejected.value.data == {"requiredCapabilities": missing}
    assert adder.calls == []


@pytest.mark.fault("B61", on=IN_ROUNDS)
async def test_a_capability_that_is_withdrawn_between_rounds(carrier: str) -> None:
    adder = Adder()
    async with connected(serving(adder.agent, carrier), Model().answer, modern=True) as wire:
        first = await wire.round("worker", GO)
        again: Any = {"answers": {"0:0": says(call(1))}, "state": first["requestState"]}
        for less in ({}, {"sampling": {}}):
            wire.capabilities = less
            with pytest.raises(Rejected) as rejected:
                await wire.round("worker", GO, **again)
            assert rejected.value.code == -32021
            assert adder.calls == []
        wire.capabilities = SAMPLING
        assert "inputRequests" in await wire.round("worker", GO, **again)
    assert adder.calls == [1]


@pytest.mark.fault("B63")
async def test_answers_that_are_missing_unknown_or_of_the_wrong_kind(carrier: str) -> None:
    adder = Adder()
    ended: list[Any] = []
    server = serving(adder.agent, carrier, on_event=ended.append)
    async with connected(server, Model().answer, modern=True) as wire:

        async def answered(answers: Any) -> Any:
            first = await wire.round("worker", GO)
            return await wire.round("worker", GO, answers=answers, state=first["requestState"])

        for nothing in ({}, {"9:9": says(text("hi"))}, {"": says(text("hi"))}):
            again = await answered(nothing)
            assert list(again["inputRequests"]) == ["0:0"]
        result = await answered(
            {"0:0": says(text("hi")), "1:0": says(text("no")), "x": {"roots": []}}
        )
        assert result["structuredContent"] == {"result": "hi"}
        for wrong in ({"action": "accept", "content": {}}, {"roots": []}):
            result = await answered({"0:0": wrong})
            assert result["isError"]
            assert "malformed_reply" in result["content"][0]["text"]
        for junk in ({}, {"role": "assistant"}, [], "text", 7, {"action": "perhaps"}):
            with pytest.raises(Rejected) as rejected:
                await answered({"0:0": junk})
            assert rejected.value.code == -32602
    for event in ended:
        if isinstance(event, RunEnded):
            check_history(list(event.run.messages))
    assert adder.calls == []


# --- progress ----------------------------------------------------------------------------------


@pytest.mark.fault("B72")
@pytest.mark.timeout(30)
async def test_progress_of_a_thousand_calls(carrier: str) -> None:
    adder = Adder(tool_calls=None, calls_per_reply=250)
    script = [[use("add", a=n + m) for n in range(250)] for m in range(4)]
    for token in ("p-1", None):
        model = Model(*script, "done")
        server = serving(adder.agent, carrier)
        began = time.monotonic()
        async with connected(server, model.answer, modern=carrier != PUSH) as wire:
            meta: Any = {"progressToken": token} if token else {}
            result = await wire.round("worker", GO, meta=meta)
            while result.get("resultType") == "input_required":
                result = await wire.go_on(result, "worker", GO, meta=meta)
            took = time.monotonic() - began
            await anyio.sleep(0.05)
            lines = [json.loads(line) for line in wire.written]
        told = [m["params"] for m in lines if m.get("method") == "notifications/progress"]
        assert "result" in lines[-1], "nothing comes after the end"
        if token is None:
            assert told == []
            continue
        assert told
        assert {params["progressToken"] for params in told} == {token}
        entered = 1 if carrier == PUSH else 5
        assert len(told) <= entered * 22 + 10 * took
        if carrier == PUSH:
            steps = [params["progress"] for params in told]
            assert all(a < b for a, b in pairwise(steps))
            assert steps[-1] == 1005


# --- stdio -------------------------------------------------------------------------------------

NOISY = """
import os, subprocess, sys
from mcp.server.mcpserver import MCPServer
from agentloop import Agent
from agentloop.mcp import mount
from agentloop.store import MemoryStore

def noisy() -> str:
    "Make noise."
    print("noise", flush=True)
    sys.stdout.write('{"jsonrpc": "2.0", "method": "forged"}\\n')
    sys.stdout.flush()
    os.write(1, b"more noise\\n")
    subprocess.run(["echo", "noise of a child"], check=True)
    return "quiet \\ud800"

server = MCPServer("noisy", log_level="CRITICAL")
mount(server, Agent("worker", tools=[noisy]), store=MemoryStore() if "stored" in sys.argv else None)
server.run("stdio")
"""


@pytest.mark.fault("B41", "B34")
@pytest.mark.timeout(30)
async def test_noise_on_standard_output(carrier: str) -> None:
    model = ScriptedProvider([use("noisy")], "done", repeat=True)
    process = StdioServerParameters(command=sys.executable, args=["-c", NOISY, carrier])
    wire: Any = PUSH if carrier == PUSH else ROUNDS
    async with MockClient(process, model, carrier=wire) as client:
        for _ in range(2):
            result = await client.call_tool("worker", GO)
            assert result.structured_content == {"result": "done"}
        assert "quiet \ufffd" in str(client.asks[-1].messages)
