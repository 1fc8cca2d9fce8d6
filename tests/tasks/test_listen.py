"""Clients that listen are told what happens to their tasks, and need not ask."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server.mcpserver import Context
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY

from agentloop import Agent
from agentloop.mcp import Tasks, mount
from agentloop.store import MemoryStore
from agentloop_providers import ScriptedProvider
from tests.faults.http import ACCEPT, MODERN, envelope, serving_http
from tests.tasks.kit import HOSTS, answers_of, calling

GO = {"prompt": "go"}
EXTENSIONS = {"sampling": {"tools": {}}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
STREAM = "io.modelcontextprotocol/subscriptionId"
every_host = pytest.mark.parametrize("host", HOSTS)

# The SDK's HTTP server and client leave generators behind that trio complains about.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")


def app_of(store: MemoryStore, host: str = "MCPServer", **options: Any) -> Any:
    """An application that serves an agent as tasks; ``change_tools`` says that tools changed."""
    server = HOSTS[host](Tasks(store, **{"look_every": 0.05, **options}))
    mount(server, Agent("worker"), task="always")
    if host == "MCPServer":

        @server.tool()
        async def change_tools(ctx: Context) -> str:
            await ctx.notify_tools_changed()
            return "changed"

    return server.http_app() if host == "FastMCP" else server.streamable_http_app()


class Stream:
    """What arrives on a stream of news."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines

    async def next(self) -> dict[str, Any]:
        """The next message."""
        with anyio.fail_after(5):
            async for line in self._lines:
                if line.startswith("data: "):
                    return json.loads(line.removeprefix("data: "))
        raise EOFError

    async def news(self, status: str) -> dict[str, Any]:
        """The next that is said of a task, once it is in this state."""
        while True:
            message = await self.next()
            assert message["method"] == "notifications/tasks", message
            assert message["params"].pop("_meta") == {STREAM: "stream"}
            if message["params"]["status"] == status:
                return message["params"]

    async def nothing(self, seconds: float) -> None:
        """Nothing comes for a while."""
        with anyio.move_on_after(seconds):
            message = await self.next()
            raise AssertionError(message)


@asynccontextmanager
async def listening(
    url: str, notifications: Any, capabilities: Any = EXTENSIONS
) -> AsyncGenerator[Any]:
    """The response to a request to listen."""
    headers = ACCEPT | {"mcp-protocol-version": MODERN, "mcp-method": "subscriptions/listen"}
    params = {"notifications": notifications, "_meta": envelope(capabilities)}
    body = {"jsonrpc": "2.0", "id": "stream", "method": "subscriptions/listen", "params": params}
    async with (
        httpx2.AsyncClient(timeout=10) as http,
        http.stream("POST", url, json=body, headers=headers) as response,
    ):
        yield response


@asynccontextmanager
async def stream(url: str, notifications: Any) -> AsyncGenerator[tuple[Any, Stream]]:
    """What the server agrees to, and the news."""
    async with listening(url, notifications) as response:
        assert response.status_code == 200
        news = Stream(response.aiter_lines())
        agreed = await news.next()
        assert agreed["method"] == "notifications/subscriptions/acknowledged"
        yield agreed["params"]["notifications"], news


@every_host
async def test_a_client_is_told_what_tasks_get_would_say(host: str) -> None:
    """The state of the moment first, then each new one, as a whole; ids of nobody are left out."""
    with serving_http(lambda: app_of(MemoryStore(), host, look_every=60)) as url:
        async with calling(url) as client:
            id = await client.task("worker", GO)
            asked = await client.asked(id)
            wanted = {"taskIds": [id, "nobody's", id]}
            async with stream(url, wanted) as (agreed, news):
                assert agreed == {"taskIds": [id]}
                first = await news.news("input_required")
                assert first["inputRequests"] == asked
                await client.update(id, await answers_of(ScriptedProvider("done"), asked))
                last = await news.news("completed")
                seen = await client.get(id)
                for added in ("resultType", "_meta"):
                    seen.pop(added, None)
                assert last == seen
                await news.nothing(0.2)


async def test_what_other_servers_do_is_told_as_well() -> None:
    """Whoever works on a task, any server of the store tells of it."""
    store = MemoryStore()
    with (
        serving_http(lambda: app_of(store)) as url,
        serving_http(lambda: app_of(store)) as other,
    ):
        async with calling(other) as client:
            ids = [await client.task("worker", GO) for _ in range(2)]
            asked = await client.asked(ids[0])
            async with stream(url, {"taskIds": ids}) as (agreed, news):
                assert agreed == {"taskIds": sorted(ids)}
                await client.update(ids[0], await answers_of(ScriptedProvider("done"), asked))
                assert (await news.news("completed"))["taskId"] == ids[0]
                await client.cancel(ids[1])
                assert (await news.news("cancelled"))["taskId"] == ids[1]


async def test_other_news_arrive_beside_those_of_tasks() -> None:
    """A stream may be for both; one that names no tasks is the SDK's alone."""
    with serving_http(lambda: app_of(MemoryStore())) as url:
        async with calling(url) as client:
            id = await client.task("worker", GO)
            await client.asked(id)
            both = {"taskIds": [id], "toolsListChanged": True}
            async with (
                stream(url, both) as (agreed, news),
                stream(url, {"toolsListChanged": True}) as (tools_only, tools),
            ):
                assert agreed == both
                assert tools_only == {"toolsListChanged": True}
                await news.news("input_required")
                await client.call("change_tools")
                for each in (news, tools):
                    message = await each.next()
                    assert message["method"] == "notifications/tools/list_changed"
                await client.cancel(id)
                await news.news("cancelled")
                await tools.nothing(0.1)


@every_host
async def test_tasks_are_for_clients_that_can_deal_with_them(host: str) -> None:
    with serving_http(lambda: app_of(MemoryStore(), host)) as url:
        async with listening(url, {"taskIds": ["x"]}, {"sampling": {}}) as response:
            error = json.loads(await response.aread())["error"]
        assert error["code"] == MISSING_REQUIRED_CLIENT_CAPABILITY
        assert (
            "io.modelcontextprotocol/tasks" in error["data"]["requiredCapabilities"]["extensions"]
        )
        for nonsense in ("x", [1], {"id": "x"}):
            async with listening(url, {"taskIds": nonsense}) as response:
                error = json.loads(await response.aread())["error"]
            assert error["code"] == INVALID_PARAMS
            assert "taskIds" in error["message"]


async def test_nobody_is_told_of_the_tasks_of_others() -> None:
    """An id that is somebody else's is left out like one that never was."""
    store = MemoryStore()
    with serving_http(lambda: app_of(store)) as url:
        async with calling(url) as client:
            id = await client.task("worker", GO)
            await client.asked(id)
            other = await client.task("worker", GO)
            await client.asked(other)

            await store.tasks.change(other, lambda task, now: replace(task, principal="alice"))
            async with stream(url, {"taskIds": [other, id]}) as (agreed, news):
                assert agreed == {"taskIds": [id]}
                assert (await news.news("input_required"))["taskId"] == id
                await news.nothing(0.15)


async def test_a_listener_that_leaves_leaves_nothing_behind() -> None:
    """Neither something that looks into the store, nor an open watch."""
    reads: list[str] = []

    class Watched(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            read = self.tasks.read

            async def noted(id: str) -> Any:
                reads.append(id)
                return await read(id)

            self.tasks.read = noted  # type: ignore[method-assign]

    with serving_http(lambda: app_of(Watched(), look_every=0.02)) as url:
        async with calling(url) as client:
            id = await client.task("worker", GO)
            await client.asked(id)
            async with stream(url, {"taskIds": [id]}) as (_, news):
                await news.news("input_required")
                before = len(reads)
                await anyio.sleep(0.2)
                assert len(reads) > before + 2
            await anyio.sleep(0.2)
            before = len(reads)
            await anyio.sleep(0.2)
            assert len(reads) == before
