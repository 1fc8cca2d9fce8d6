"""How many rounds a call takes, and how it ends when there are no more."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import InputRequiredRoundsExceededError
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CreateMessageRequestParams

from agentloop import Agent, Limits, gather, once
from agentloop.errors import DefinitionError
from agentloop.mcp import mount, resumable
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use
from tests.carriers.functions import asked

FOUR_ASKS = 4


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def worker(**limits: Any) -> Agent[str]:
    return Agent("worker", "Work.", tools=[add], limits=Limits(**limits))


def busy(request: CreateMessageRequestParams) -> Line:
    """Four asks for a part; words when no tools are allowed; a lead that calls all at once."""
    prompt, replies = asked(request)
    if prompt == "lead":
        calls = [use("worker", id=f"w{part}", prompt=f"part {part}") for part in range(3)]
        return "all done" if replies else calls
    if replies < FOUR_ASKS - 1:
        return [use("add", id=f"a{replies}", a=replies, b=1)]
    return f"{prompt} is done"


def endless(request: CreateMessageRequestParams) -> Line:
    """Calls tools for as long as it may, and then sums up."""
    if request.tool_choice is not None and request.tool_choice.mode == "none":
        return "this is what I have"
    replies = asked(request)[1]
    names = [tool.name for tool in request.tools or []]
    if "add" in names:
        return [use("add", id=f"a{replies}", a=replies, b=1)]
    return [use(names[0], id=f"s{replies}", prompt=f"try {replies}")]


def serving(function: Any) -> MCPServer:
    server = MCPServer("rounds", log_level="CRITICAL")
    server.add_tool(resumable(function), name="play")
    return server


def model(says: Any) -> ScriptedProvider:
    return ScriptedProvider(says, repeat=True)


async def test_parallel_agents_share_their_rounds() -> None:
    """Three agents that need four asks each take four rounds of a client that grants ten."""

    async def play(ctx: Context) -> list[str]:
        parts = await gather(*(worker().run(f"part {part}") for part in range(3)))
        return [part.output for part in parts]

    async with MockClient(serving(play), model(busy)) as client:
        result = await client.call_tool("play")

    assert result.structured_content == {"result": [f"part {n} is done" for n in range(3)]}
    assert client.rounds == FOUR_ASKS
    assert len(client.asks) == 3 * FOUR_ASKS


async def test_parallel_agents_as_tools_share_their_rounds() -> None:
    """As tools of one agent they take its own two asks more."""
    lead = Agent("lead", tools=[worker().as_tool()])
    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, lead)

    async with MockClient(server, model(busy)) as client:
        result = await client.call_tool("lead", {"prompt": "lead"})

    assert result.structured_content == {"result": "all done"}
    assert client.rounds == FOUR_ASKS + 2
    assert len(client.asks) == 3 * FOUR_ASKS + 2


async def test_all_asks_of_a_round_leave_together() -> None:
    """A client sees every open ask at once, under a key that never comes back."""
    seen: list[list[str]] = []

    async def play(ctx: Context) -> None:
        await gather(*(worker().run(f"part {part}") for part in range(3)))

    async def look(round_: Any) -> None:
        seen.append(list(round_.input_requests))

    async with MockClient(serving(play), model(busy)) as client:
        await client.call_tool("play", between_rounds=look)

    assert [len(keys) for keys in seen] == [3] * FOUR_ASKS
    assert len({key for keys in seen for key in keys}) == 3 * FOUR_ASKS


async def test_a_model_that_never_stops_ends_in_words() -> None:
    """By the tenth round the model is asked for words alone, and the call has an answer."""
    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, worker())

    async with MockClient(server, model(endless)) as client:
        result = await client.call_tool("worker", {"prompt": "go"})

    assert client.rounds == 10
    assert result.structured_content == {"result": "this is what I have"}
    assert result.meta is not None
    assert result.meta["dev.agentloop/result"]["stop"] == "rounds"
    last = client.asks[-1]
    assert last.tool_choice is not None
    assert last.tool_choice.mode == "none"
    assert "no further rounds" in last.messages[-1].model_dump_json()


@pytest.mark.parametrize(("limit", "grants"), [(3, 10), (1, 10), (12, 12), (12, 20)])
async def test_the_limit_is_the_authors(limit: int, grants: int) -> None:
    """``Limits.rounds`` ends a run earlier, or later where clients grant more."""
    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, worker(rounds=limit))

    async with MockClient(server, model(endless), max_rounds=grants) as client:
        await client.call_tool("worker", {"prompt": "go"})

    assert client.rounds == limit


async def test_a_client_that_grants_fewer_gives_up() -> None:
    """What the client grants is not known to the server: past it, the client raises."""
    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, worker())

    async with MockClient(server, model(endless), max_rounds=4) as client:
        with pytest.raises(InputRequiredRoundsExceededError):
            await client.call_tool("worker", {"prompt": "go"})

    assert len(client.asks) == 4


async def test_earlier_runs_use_up_rounds() -> None:
    """The limit counts rounds of the call, whichever run used them."""

    async def play(ctx: Context) -> list[Any]:
        first = await worker(rounds=6).run("first")
        second = await worker().run("second")
        third = await worker().run("third")
        return [[str(run.stop), run.steps, run.output] for run in (first, second, third)]

    async with MockClient(serving(play), model(endless)) as client:
        result = await client.call_tool("play")

    words = "this is what I have"
    assert client.rounds == 10
    assert result.structured_content == {
        "result": [["rounds", 6, words], ["rounds", 4, words], ["rounds", 0, ""]]
    }


async def test_agents_inside_agents_leave_room_for_the_outer_ones() -> None:
    """Sub-agents that never stop sum up early enough for the runs above them to do so, too."""
    inner = worker()
    middle = Agent("middle", tools=[inner.as_tool()])
    outer = Agent("outer", tools=[middle.as_tool()], limits=Limits(rounds=8))
    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, outer)

    async with MockClient(server, model(endless)) as client:
        result = await client.call_tool("outer", {"prompt": "go"})

    assert client.rounds == 8
    assert result.structured_content == {"result": "this is what I have"}
    assert "this is what I have" in client.asks[-1].messages[-1].model_dump_json()
    assert "this is what I have" in client.asks[-2].messages[-1].model_dump_json()


async def test_a_typed_answer_comes_by_the_last_round() -> None:
    """Where the output has a type, the last round asks for that alone."""

    def says(request: CreateMessageRequestParams) -> Line:
        if [tool.name for tool in request.tools or []] == ["final_answer"]:
            return [use("final_answer", id="f", result=7)]
        return endless(request)

    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, Agent("worker", tools=[add], output=int))

    async with MockClient(server, model(says)) as client:
        result = await client.call_tool("worker", {"prompt": "go"})

    assert client.rounds == 10
    assert result.structured_content == {"result": 7}


async def test_push_counts_no_rounds() -> None:
    """Where the client can be asked directly, only the other limits hold."""
    server = MCPServer("rounds", log_level="CRITICAL")
    mount(server, worker(steps=14))

    async with MockClient(server, model(endless), carrier="push") as client:
        result = await client.call_tool("worker", {"prompt": "go"})

    assert len(client.asks) == 14
    assert result.meta is not None
    assert result.meta["dev.agentloop/result"]["stop"] == "steps"


async def test_a_task_group_of_the_authors_own() -> None:
    """Without ``gather``, too: tasks may start in any order, and take the same rounds."""

    async def play(ctx: Context) -> list[str]:
        said = [""] * 3

        async def write(part: int) -> None:
            said[part] = (await worker().run(f"part {part}")).output

        async with anyio.create_task_group() as group:
            for part in range(3):
                group.start_soon(write, part)
        return said

    async with MockClient(serving(play), model(busy)) as client:
        result = await client.call_tool("play")

    assert result.structured_content == {"result": [f"part {part} is done" for part in range(3)]}
    assert client.rounds == FOUR_ASKS


async def test_several_runs_in_each_task_of_the_authors_own() -> None:
    """Runs that begin one after the other in such tasks are told apart, equal ones as well."""
    critic = Agent("critic")

    async def play(ctx: Context) -> list[str]:
        said = [""] * 4

        async def write(place: int, part: int) -> None:
            written = await worker().run(f"part {part}")
            said[place] = (await critic.run("lead" if part else written.output)).output

        async with anyio.create_task_group() as group:
            for place, part in enumerate((0, 1, 2, 2)):
                group.start_soon(write, place, part)
        return said

    def says(request: CreateMessageRequestParams) -> Line:
        return busy(request) if request.tools else "judged " + asked(request)[0]

    async with MockClient(serving(play), model(says)) as client:
        result = await client.call_tool("play")

    assert result.structured_content == {"result": ["judged part 0 is done", *["judged lead"] * 3]}
    assert client.rounds == FOUR_ASKS + 1
    assert len(client.asks) == 4 * (FOUR_ASKS + 1)


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_a_name_is_for_one_value(carrier: Any) -> None:
    """``once`` refuses a name that is taken, on every carrier; each branch has names of its own."""

    async def loop(ctx: Context) -> list[int]:
        return [await once("number", int, number) for number in (1, 2)]

    async def branches(ctx: Context) -> list[int]:
        return await gather(*(once("number", int, number) for number in (1, 2)))

    server = serving(loop)
    server.add_tool(resumable(branches))
    async with MockClient(server, model("hi"), carrier=carrier) as client:
        assert (await client.call_tool("play")).is_error
        result = await client.call_tool("branches")

    assert result.structured_content == {"result": [1, 2]}


async def test_what_once_cannot_keep() -> None:
    """A value without a JSON form is the author's mistake, not a surprise in the next round."""

    async def play(ctx: Context) -> str:
        with pytest.raises(DefinitionError, match="no JSON form"):
            await once("socket", object)
        return "told"

    async with MockClient(serving(play), model("hi")) as client:
        assert (await client.call_tool("play")).structured_content == {"result": "told"}
