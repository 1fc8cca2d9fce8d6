"""Calls of 2025-11-25 over HTTP whose streams end before they do (SEP-1699)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import CreateMessageRequestParams, ElicitResult, JSONRPCMessage
from pydantic import BaseModel

from agentloop import Agent, ask_user, tool
from agentloop.mcp import mount, resumable
from agentloop.mcp.callback import TOOLS, sampling_callback
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use
from tests.faults.http import ACCEPT, serving_http
from tests.faults.wire import ME, SAMPLING

pytestmark = [
    pytest.mark.anyio,
    # The SDK's HTTP server and client leave generators behind that trio complains about.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object"),
]


class Events(EventStore):
    """Events in memory. A client that comes back waits ``seconds`` for its new stream."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.kept: list[tuple[str, Any]] = []
        self._seconds = seconds

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        begun = any(stream == stream_id for stream, _ in self.kept)
        if message is None and begun:
            await anyio.sleep(self._seconds)
        self.kept.append((stream_id, message))
        if message is None and begun:
            await anyio.sleep(self._seconds)
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str:
        after = int(last_event_id)
        stream_id = self.kept[after - 1][0]
        for number, (stream, message) in enumerate(list(self.kept[after:]), after + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id

    def streams(self, id: str) -> int:
        """How many streams a request had: each begins with an event that says nothing."""
        return sum(stream == id and message is None for stream, message in self.kept)


@tool
async def slow(n: int) -> int:
    """Take some time."""
    await anyio.sleep(0.5)
    return n


LINES: tuple[Line, ...] = (use("slow", id="a", n=1), use("slow", id="b", n=2), "Done.")


def slow_server(*, stream_seconds: float | None) -> MCPServer:
    server = MCPServer("slow")
    mount(server, Agent("slow", tools=[slow]), stream_seconds=stream_seconds)
    return server


@asynccontextmanager
async def serving(server: MCPServer, events: Events | None) -> AsyncGenerator[str]:
    def app() -> Any:
        return server.streamable_http_app(event_store=events, retry_interval=30)

    with serving_http(app) as url:
        yield url


class Model:
    """A client's model that takes its time; ``seen`` are the requests that it got."""

    def __init__(self, *lines: Line) -> None:
        self.seen: list[Any] = []
        self._answer = sampling_callback(ScriptedProvider(*lines))

    async def __call__(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> Any:
        self.seen.append(params.model_dump(mode="json", exclude={"meta"}))
        await anyio.sleep(0.5)
        return await self._answer(context, params)


async def called(url: str, model: Model, noted: list[float] | None = None) -> str:
    async def note(progress: float, total: float | None, message: str | None) -> None:
        if noted is not None:
            noted.append(progress)

    async with Client(
        url, mode="legacy", sampling_callback=model, sampling_capabilities=TOOLS
    ) as client:
        result = await client.call_tool("slow", {"prompt": "go"}, progress_callback=note)
    return result.content[0].text  # type: ignore[union-attr]


async def test_a_call_longer_than_its_streams_finishes_with_the_same_transcript() -> None:
    whole, cut, events, progress = Model(*LINES), Model(*LINES), Events(), list[float]()
    async with serving(slow_server(stream_seconds=None), events) as url:
        await called(url, whole)
    assert events.streams("2") == 1

    events = Events()
    async with serving(slow_server(stream_seconds=0.2), events) as url:
        assert await called(url, cut, progress) == "Done."
    assert events.streams("2") > 3
    assert cut.seen == whole.seen
    assert progress == sorted(set(progress))
    assert len(progress) > 5  # five of the run itself, and one for each stream


async def test_without_an_event_store_the_stream_is_left_alone() -> None:
    async with serving(slow_server(stream_seconds=0.1), None) as url:
        assert await called(url, Model(*LINES)) == "Done."


@pytest.mark.parametrize("seconds", [0.05, 0.15])
async def test_nothing_is_lost_while_the_host_makes_a_new_stream(seconds: float) -> None:
    # What leaves between what is sent again and the new stream is on neither of them.
    events, model = Events(seconds), Model(*LINES)
    async with serving(slow_server(stream_seconds=0.4), events) as url:
        with anyio.fail_after(60):
            assert await called(url, model) == "Done."
    assert len(model.seen) == 3


class Name(BaseModel):
    name: str


async def test_a_person_is_asked_on_a_stream_that_is_closed_meanwhile() -> None:
    server = MCPServer("people")

    @server.tool()
    @resumable(stream_seconds=0.2)
    async def greet(ctx: Context[Any, Any]) -> str:
        await anyio.sleep(0.3)
        return "Hello " + (await ask_user("Who are you?", Name)).name

    async def person(context: Any, params: Any) -> Any:
        await anyio.sleep(0.5)
        return ElicitResult(action="accept", content={"name": "Ada"})

    events = Events()
    async with (
        serving(server, events) as url,
        Client(url, mode="legacy", elicitation_callback=person) as client,
    ):
        result = await client.call_tool("greet", {})
    assert result.content[0].text == "Hello Ada"  # type: ignore[union-attr]
    assert events.streams("2") > 1


# --- by hand ----------------------------------------------------------------------------------


class Hand:
    """A session by hand over HTTP."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self._url, self._http = url, http
        self._headers = ACCEPT | {"mcp-protocol-version": "2025-11-25"}

    async def initialize(self) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": SAMPLING, "clientInfo": ME}
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        response = await self._http.post(self._url, json=body, headers=self._headers)
        self._headers["mcp-session-id"] = response.headers["mcp-session-id"]
        await self.send({"method": "notifications/initialized"})

    async def send(self, message: dict[str, Any]) -> None:
        body = {"jsonrpc": "2.0", **message}
        response = await self._http.post(self._url, json=body, headers=self._headers)
        assert response.status_code == 202

    async def events(
        self,
        body: dict[str, Any] | None,
        *,
        after: str | None = None,
        until: Callable[[dict[str, str]], bool],
    ) -> list[dict[str, str]]:
        """The events of one stream, until it ends or ``until`` is true of one."""
        got: list[dict[str, str]] = []
        event: dict[str, str] = {}
        headers = self._headers | ({"last-event-id": after} if after else {})
        method = "GET" if body is None else "POST"
        async with self._http.stream(method, self._url, json=body, headers=headers) as response:
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if line and field:
                    event[field] = value
                elif event:
                    got.append(event)
                    if until(event):
                        break
                    event = {}
        return got

    async def pong(self, message: dict[str, Any]) -> None:
        await self.send({"id": message["id"], "result": {}})


@asynccontextmanager
async def by_hand(url: str) -> AsyncGenerator[Hand]:
    async with httpx2.AsyncClient(timeout=20) as http:
        hand = Hand(url, http)
        await hand.initialize()
        yield hand


def call(id: int, name: str) -> dict[str, Any]:
    params: dict[str, Any] = {"name": name, "arguments": {}}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def messages(events: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [json.loads(event["data"]) for event in events if event.get("data")]


def is_ping(event: dict[str, str]) -> bool:
    return '"method":"ping"' in event.get("data", "")


def is_answer(event: dict[str, str]) -> bool:
    return '"result":' in event.get("data", "")


def is_any(event: dict[str, str]) -> bool:
    return True


async def until(happened: Callable[[], bool]) -> None:
    """Wait for what happens in the server's thread."""
    with anyio.fail_after(10):
        while not happened():  # noqa: ASYNC110  threads set no event of ours
            await anyio.sleep(0.02)


def napping(seconds: float, *, stream_seconds: float | None) -> tuple[MCPServer, list[str]]:
    server, done = MCPServer("naps"), list[str]()

    @server.tool()
    @resumable(stream_seconds=stream_seconds)
    async def nap(ctx: Context[Any, Any]) -> str:
        await anyio.sleep(seconds)
        done.append("nap")
        return "rested"

    return server, done


async def test_h1_a_stream_says_where_and_when_to_come_back_and_closes_early() -> None:
    server, _ = napping(0.6, stream_seconds=0.2)
    async with serving(server, Events()) as url, by_hand(url) as hand:
        first = await hand.events(call(2, "nap"), until=is_answer)
        assert (first[0]["data"], first[0]["retry"]) == ("", "30")
        assert first[0]["id"]
        assert messages(first) == []  # it ended without an answer

        last, events = first[0]["id"], first
        while not any(is_answer(event) for event in events):
            events = await hand.events(
                None, after=last, until=lambda event: is_ping(event) or is_answer(event)
            )
            last = next((event["id"] for event in reversed(events) if "id" in event), last)
            for event in filter(is_ping, events):
                await hand.pong(json.loads(event["data"]))
        answer = messages(events)[-1]
        assert (answer["id"], answer["result"]["content"][0]["text"]) == (2, "rested")


async def test_h2_a_client_that_comes_back_gets_the_messages_of_its_stream_alone() -> None:
    server, done = napping(0.3, stream_seconds=None)
    async with serving(server, Events()) as url, by_hand(url) as hand:
        begun = {id: await hand.events(call(id, "nap"), until=is_any) for id in (7, 8)}
        await until(lambda: len(done) == 2)
        ids: set[str] = set()
        for id, first in begun.items():
            back = await hand.events(None, after=first[0]["id"], until=is_answer)
            assert [message["id"] for message in messages(back)] == [id]
            new = {event["id"] for event in [*first, *back] if "id" in event}
            assert not new & ids
            ids |= new


async def test_n2_a_dropped_stream_does_not_cancel_the_call() -> None:
    server, done = napping(0.6, stream_seconds=0.2)
    async with serving(server, Events()) as url, by_hand(url) as hand:
        await hand.events(call(2, "nap"), until=is_any)
        assert done == []
        await until(lambda: bool(done))
