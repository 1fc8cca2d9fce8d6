"""The same scenario gives the same transcript on every carrier, transport and backend."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import count, product
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog.testing
from mcp_types import CreateMessageRequestParams

from agentloop.meta import Reply
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from tests.carriers.kit import SECRET, Scenario
from tests.carriers.processes import http_process, stdio_process
from tests.carriers.stage import TABLE, played_directly, stage

CARRIERS = ("push", "rounds", "task")
TRANSPORTS = ("memory", "stdio", "http")
SERVED = [*product(("push", "rounds"), TRANSPORTS), ("task", "memory"), ("task", "http")]
COLUMNS = [("direct", "direct"), *SERVED]
CALLS = count()

# The SDK's HTTP client leaves generators of httpx2 unfinished, which trio complains about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object (EventSource|Response|PoolByteStream)"
)


class Model:
    """The model of clients that stay connected while scenarios change."""

    name = "model"
    now: ScriptedProvider

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        return await self.now.sample(request)


class Watching(MockClient):
    """A client that waits for the progress it must see."""

    async def arrived(self, events: dict[str, int]) -> None:
        """One message for each answer and each tool result, and no other one."""
        ends = [n for event, n in events.items() if event.startswith(("AskEnded", "ToolEnded"))]
        with anyio.move_on_after(1):
            while len(self.progress) < sum(ends):  # what came before the result is on its way
                await anyio.lowlevel.checkpoint()
        assert len(self.progress) == sum(ends)


class Clients:
    """A connected client for every carrier and transport, all with one model."""

    def __init__(self) -> None:
        self.model = Model()
        self.by_column: dict[tuple[str, str], Watching] = {}

    async def play(self, row: Scenario, carrier: str, transport: str) -> tuple[Any, list[Any]]:
        """What comes of ``row``, and what the model was asked."""
        self.model.now = row.model()
        if carrier == "direct":
            played = await played_directly(row, self.model)
        else:
            client = self.by_column[carrier, transport]
            call = {"name": row.name, "call": str(next(CALLS))}
            result = await client.call_tool("play", call)
            assert not result.is_error, result.content
            played = result.structured_content
        self.model.now.finish()
        return played, asks_in(self.model.now)


def asks_in(provider: ScriptedProvider) -> list[Any]:
    """The asks that ``provider`` got, as JSON and in a fixed order."""
    asks = [
        request.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"meta"})
        for request in provider.requests
    ]
    return sorted(asks, key=lambda ask: json.dumps(ask, sort_keys=True))


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Once for all scenarios, so that servers and clients stay."""
    return request.param


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Keep tracebacks of failures that are wanted from being drawn, which takes long."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(scope="module")
def http_url() -> Iterator[str]:
    """A stage that is served over HTTP, by a process of its own."""
    with http_process() as url:
        yield url


@pytest.fixture(scope="module")
async def clients(anyio_backend: str, http_url: str) -> AsyncIterator[Clients]:
    """Clients of the stage: in this process, in a process on this backend, and over HTTP."""
    servers = {"memory": stage(), "stdio": stdio_process(anyio_backend), "http": http_url}
    clients = Clients()
    async with AsyncExitStack() as stack:
        for carrier, transport in SERVED:
            client = Watching(servers[transport], clients.model, carrier=carrier)
            clients.by_column[carrier, transport] = await stack.enter_async_context(client)
        yield clients


@pytest.fixture(scope="module")
def golden() -> dict[str, tuple[Any, list[Any]]]:
    """Every scenario as it is played directly on asyncio: what all others must equal."""

    async def play_all() -> dict[str, tuple[Any, list[Any]]]:
        played: dict[str, tuple[Any, list[Any]]] = {}
        for name, row in TABLE.items():
            model = row.model()
            played[name] = (await played_directly(row, model), asks_in(model))
        return played

    with ThreadPoolExecutor(1) as thread:  # this one may be inside of an event loop
        return thread.submit(anyio.run, play_all).result()


def test_the_table_is_wide() -> None:
    """There are scenarios enough, and none is left out without a reason."""
    assert len(TABLE) >= 25
    for row in TABLE.values():
        assert row.not_on.keys() <= {*CARRIERS, *TRANSPORTS}
        assert all(row.not_on.values())


@pytest.mark.parametrize("name", TABLE)
def test_what_must_come_of_it(name: str, golden: dict[str, tuple[Any, list[Any]]]) -> None:
    """Each scenario gives what its row says, and the model never sees a broken history."""
    row = TABLE[name]
    played, asks = golden[name]
    told = json.dumps([asks, played["runs"]], ensure_ascii=False)

    assert played["value"] == row.gives
    assert {key: run["stop"] for key, run in played["runs"].items()} == row.stops
    assert played["effects"] == sorted(row.effects)
    for text in row.tells:
        assert json.dumps(text, ensure_ascii=False)[1:-1] in told
    assert SECRET not in told or SECRET in row.tells
    for messages in [ask["messages"] for ask in asks] + [
        run["messages"] for run in played["runs"].values()
    ]:
        assert_balanced(messages)


@pytest.mark.parametrize(("carrier", "transport"), COLUMNS, ids=["-".join(c) for c in COLUMNS])
@pytest.mark.parametrize("name", TABLE)
async def test_same_everywhere(
    name: str,
    carrier: str,
    transport: str,
    clients: Clients,
    golden: dict[str, tuple[Any, list[Any]]],
) -> None:
    """Answers, stops, transcripts, asks, events and effects are those of the direct run."""
    row = TABLE[name]
    for part in (carrier, transport):
        if part in row.not_on:
            pytest.skip(row.not_on[part])
    with anyio.fail_after(20):
        played, asks = await clients.play(row, carrier, transport)

    expected, expected_asks = golden[name]
    assert played == expected
    assert asks == expected_asks
    if carrier == "task":
        assert clients.by_column[carrier, transport].progress == []
    elif carrier != "direct":
        await clients.by_column[carrier, transport].arrived(played["events"])


def assert_balanced(messages: list[dict[str, Any]]) -> None:
    """Every tool use has exactly one result, in one user message that holds nothing else."""
    open_uses: list[str] = []
    for message in messages:
        kinds = {block["type"] for block in message["content"]}
        if open_uses:
            assert message["role"] == "user"
            assert kinds == {"tool_result"}
            assert [block["toolUseId"] for block in message["content"]] == open_uses
        else:
            assert "tool_result" not in kinds
        open_uses = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        assert len(set(open_uses)) == len(open_uses)
        assert not open_uses or message["role"] == "assistant"
    assert not open_uses
