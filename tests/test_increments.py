"""What a suspended call comes to is written down step by step, and read back the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from agentloop import Agent, Limits
from agentloop.errors import StateError
from agentloop.loop import Driver
from agentloop.machine import start
from agentloop.mcp import mount
from agentloop.mcp.increments import Increments, amend
from agentloop.place import Host, Place
from agentloop.run import Run
from agentloop.store import MemoryStore, Round
from agentloop.testing import MockClient
from agentloop.transcript import written
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use


def echo(text: str) -> str:
    """Say it again."""
    return text


def talker() -> Agent[str]:
    return Agent("talker", "Talk.", tools=[echo], limits=Limits(steps=None, tool_calls=None))


class Keeping(Host):
    """Keeps a run as it was after each of its changes."""

    def __init__(self, model: ScriptedProvider) -> None:
        super().__init__(model, None)
        self.kept: list[Run] = []

    def keep(self, key: str, run: Run) -> None:
        self.kept.append(run)


async def stages(steps: int) -> Sequence[Run]:
    """A run of so many steps, after each of its changes; its tools answer alike."""
    agent = talker()
    model = ScriptedProvider(*[use("echo", text=f"{n:04}") for n in range(steps - 1)], "Done.")
    host = Keeping(model)
    place = Place("", None, host).below(nesting=1)
    run = start(agent.definition, "Go.", id="r")
    await Driver(model, agent.tools, place, place.host.journal, run).drive()
    return host.kept


async def test_read_back_at_any_point_it_is_the_run_as_it_was() -> None:
    increments, entries = Increments(), list[str]()
    for run in await stages(6):
        entry = increments.take({"0": run}, {}, written)
        assert entry is not None
        entries.append(entry)
        kept = amend({}, entries)["runs"]["0"]
        assert Run.from_json(kept, run.definition) == run


async def test_what_did_not_change_is_not_written_again() -> None:
    (*_, run) = await stages(2)
    increments = Increments()
    increments.take({"0": run}, {"k": 1}, written)
    assert increments.take({"0": run}, {"k": 1}, written) is None
    assert json.loads(increments.take({"0": run}, {"k": 1, "n": 2}, written) or "") == {
        "runs": {},
        "values": {"n": 2},
    }


async def test_an_entry_does_not_grow_with_the_history() -> None:
    increments = Increments()
    told = [increments.take({"0": run}, {}, written) or "" for run in await stages(120)]
    sizes = [len(entry) for entry in told]
    early, late = max(sizes[10:30]), max(sizes[-30:-2])
    assert late < early + 40  # a few digits more


@pytest.mark.parametrize("entry", ["", "[]", '{"runs": {}}', '{"values": {}, "runs": {"0": {}}}'])
def test_a_damaged_entry_is_a_clear_error(entry: str) -> None:
    with pytest.raises(StateError, match="the state is damaged"):
        amend({}, [entry])


async def test_a_run_on_the_servers_own_model_writes_each_step_once() -> None:
    class Counting(MemoryStore):
        written = 0

        async def append(self, round: Round, entry: str) -> None:
            self.written += len(entry)
            await super().append(round, entry)

    async def bytes_of(steps: int) -> int:
        store, server = Counting(), MCPServer("s")
        calls = [use("echo", text=f"{number:03}" * 100) for number in range(steps - 1)]
        model = ScriptedProvider(*calls, "Done.")
        agent = Agent("talker", tools=[echo], limits=Limits(steps=None))
        mount(server, agent, store=store, provider=model, max_state_bytes=1)
        async with MockClient(server) as client:
            result: Any = await client.call_tool("talker", {"prompt": "Go."})
        assert result.structured_content == {"result": "Done."}
        return store.written

    assert await bytes_of(80) < 2.5 * await bytes_of(40)
