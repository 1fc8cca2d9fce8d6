"""A run that ended on a limit is gone on with by a later call."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from fastmcp import FastMCP
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import CreateMessageRequestParams

from agentloop import Agent, Limits
from agentloop.errors import StateError
from agentloop.mcp import Tasks, mount
from agentloop.meta import Reply
from agentloop.store import Entered, MemoryStore
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

RESULT = "dev.agentloop/result"


def count(to: int) -> str:
    """Count."""
    return f"counted to {to}"


def counter(instructions: str = "Count.", **limits: Any) -> Agent[str]:
    return Agent("counter", instructions, tools=[count], limits=Limits(**limits))


def serving(agent: Agent[str], host: Any = MCPServer, store: MemoryStore | None = None) -> Any:
    server = host("counting")
    mount(server, agent, store=store)
    return server


def handle_of(result: Any) -> str:
    return result.meta[RESULT]["handle"]


@pytest.mark.parametrize("host", [MCPServer, Server, FastMCP])
@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_a_later_call_goes_on_from_where_a_limit_struck(carrier: Any, host: Any) -> None:
    server = serving(counter(steps=2), host, MemoryStore())
    model = ScriptedProvider(use("count", to=1), "As far as one.", use("count", to=2), "Two.")
    async with MockClient(server, model, carrier=carrier) as client:
        first = await client.call_tool("counter", {"prompt": "Count to two."})
        assert first.meta is not None
        assert first.meta[RESULT]["stop"] == "steps"
        assert handle_of(first) in first.content[-1].text  # what a model is shown of it
        second = await client.call_tool("counter", {"prompt": "Go on.", "resume": handle_of(first)})
    asked = [block for message in client.asks[-1].messages for block in message.content_as_list]
    texts = [block.text for block in asked if block.type == "text"]
    assert texts[0] == "Count to two."
    assert "As far as one." in texts
    assert "Go on." in texts
    assert second.structured_content == {"result": "Two."}


async def test_rounds_that_run_out_leave_a_handle() -> None:
    server = serving(counter(rounds=2), store=MemoryStore())
    model = ScriptedProvider(use("count", to=1), "So far.", "Done.")
    async with MockClient(server, model, max_rounds=2) as client:
        first = await client.call_tool("counter", {"prompt": "Count."})
        assert first.meta is not None
        assert first.meta[RESULT]["stop"] == "rounds"
        second = await client.call_tool("counter", {"prompt": "On.", "resume": handle_of(first)})
    assert second.structured_content == {"result": "Done."}


async def test_a_run_that_is_done_leaves_none() -> None:
    server = serving(counter(), store=MemoryStore())
    async with MockClient(server, ScriptedProvider("Done.")) as client:
        result = await client.call_tool("counter", {"prompt": "Count."})
    assert result.meta is not None
    assert "handle" not in result.meta[RESULT]
    assert len(result.content) == 1


async def test_without_a_store_there_is_no_handle_and_no_argument_for_one() -> None:
    server = serving(counter(steps=1))
    async with MockClient(server, ScriptedProvider("As far as that.")) as client:
        (tool,) = (await client.client.list_tools()).tools
        assert list(tool.input_schema["properties"]) == ["prompt"]
        result = await client.call_tool("counter", {"prompt": "Count."})
    assert result.meta is not None
    assert "handle" not in result.meta[RESULT]


@pytest.mark.parametrize("handle", ["", "h", "h" + "0" * 32, "../x", "h\0"])
async def test_an_unknown_handle_is_a_clear_error(handle: str) -> None:
    server = serving(counter(), store=MemoryStore())
    async with MockClient(server, ScriptedProvider()) as client:
        with pytest.raises(MCPError, match="nothing is kept under this handle"):
            await client.call_tool("counter", {"prompt": "On.", "resume": handle})


async def test_a_handle_is_kept_for_as_long_as_the_store_keeps_things() -> None:
    server = serving(counter(steps=2), store=MemoryStore(keep=0.2))
    async with MockClient(server, ScriptedProvider(use("count", to=1), "So far.")) as client:
        first = await client.call_tool("counter", {"prompt": "Count."})
        await anyio.sleep(0.3)
        with pytest.raises(MCPError, match="nothing is kept under this handle"):
            await client.call_tool("counter", {"prompt": "On.", "resume": handle_of(first)})


class Forgetting:
    """A model, while which answers the store loses what is kept under a handle."""

    name = "model"

    def __init__(self, store: MemoryStore, *script: Any) -> None:
        self.handle = ""
        self._store, self._model = store, ScriptedProvider(*script)

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        if self.handle:
            await self._store.forget(self.handle)
        return await self._model.sample(request)


@pytest.mark.parametrize("carrier", ["push", "rounds", "task"])
async def test_a_call_that_began_with_a_handle_ends_though_that_expires(carrier: Any) -> None:
    """A handle is good for beginning a call; what began is not looked up again."""
    store = MemoryStore()
    tasks = Tasks(store, poll=0.01, look_every=0.05)
    server = MCPServer("counting", extensions=[tasks], lifespan=tasks.lifespan())
    when = "always" if carrier == "task" else "when_needed"
    mount(server, counter(steps=2), store=store, task=when)
    model = Forgetting(store, use("count", to=1), "One.", use("count", to=2), "Two.")
    async with MockClient(server, model, carrier=carrier) as client:
        first = await client.call_tool("counter", {"prompt": "Count."})
        model.handle = handle_of(first)
        again = {"prompt": "Go on.", "resume": model.handle}
        second = await client.call_tool("counter", again)
        with pytest.raises(MCPError, match="nothing is kept under this handle"):
            await client.call_tool("counter", again)

    assert second.structured_content == {"result": "Two."}
    history = client.asks[1].messages
    assert client.asks[3].messages[: len(history)] == client.asks[2].messages[: len(history)]


async def test_a_handle_is_for_the_agent_that_gave_it_as_it_was() -> None:
    store = MemoryStore()
    model = ScriptedProvider(use("count", to=1), "So far.")
    async with MockClient(serving(counter(steps=2), store=store), model) as client:
        first = await client.call_tool("counter", {"prompt": "Count."})
    changed = serving(counter("Count backwards."), store=store)
    async with MockClient(changed, ScriptedProvider()) as client:
        with pytest.raises(MCPError, match="another definition of agent 'counter'"):
            await client.call_tool("counter", {"prompt": "On.", "resume": handle_of(first)})


async def test_the_name_of_a_call_is_no_handle() -> None:
    store = MemoryStore()
    begun = await store.begin("h-not-a-run", lease=1, keep=10)
    assert isinstance(begun, Entered)
    await store.settle(begun.round, '{"value": 1}', next_state=None)
    async with MockClient(serving(counter(), store=store), ScriptedProvider()) as client:
        with pytest.raises(MCPError, match="nothing is kept under this handle"):
            await client.call_tool("counter", {"prompt": "On.", "resume": "h-not-a-run"})


async def test_outside_of_served_calls_nothing_is_kept() -> None:
    with pytest.raises(StateError, match="a handle is for a served call with a store"):
        await counter().run("On.", provider=ScriptedProvider(), resume="h1")
