"""Agents in the three hosts, for clients of both eras."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmcp
import pytest
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import (
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from pydantic import BaseModel

from agentloop import Agent, gather
from agentloop.errors import DefinitionError, OverloadedError
from agentloop.events import Event
from agentloop.mcp import Tasks, mount, resumable
from agentloop.mcp.callback import TOOLS, sampling_handler
from agentloop.mcp.lowlevel import seal
from agentloop.store import MemoryStore
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.carriers.driver import call_once

RESULT = "dev.agentloop/result"
SERVERS: dict[str, Callable[[], Any]] = {
    "MCPServer": lambda: MCPServer("host", log_level="CRITICAL"),
    "low-level": lambda: Server("host"),
    "FastMCP": lambda: fastmcp.FastMCP("host"),
}
every_host = pytest.mark.parametrize("host", SERVERS)
both_eras = pytest.mark.parametrize("carrier", ["push", "rounds"])
SUM = [use("add", a=1, b=2)]


class Sum(BaseModel):
    total: int
    of: list[int]


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def calc(**options: Any) -> Agent[Any]:
    return Agent("calc", tools=[add], description="Adds up.", **options)


@every_host
@both_eras
async def test_an_agent_is_a_tool_in_one_line(host: str, carrier: Any) -> None:
    """The tool takes a prompt and gives the answer, and in ``_meta`` how it came about."""
    server = SERVERS[host]()
    mount(server, calc())

    with ScriptedProvider(SUM, "three") as model:
        async with MockClient(server, model, carrier=carrier) as client:
            [offered] = (await client.client.list_tools()).tools
            result = await client.call_tool("calc", {"prompt": "1 + 2?"})

    assert (offered.name, offered.description) == ("calc", "Adds up.")
    assert list(offered.input_schema["properties"]) == ["prompt"]
    assert offered.input_schema["required"] == ["prompt"]
    assert not result.is_error
    assert [block.text for block in result.content if block.type == "text"] == ["three"]
    assert result.structured_content == {"result": "three"}
    assert result.meta is not None
    assert result.meta[RESULT]["stop"] == "done"
    assert (result.meta[RESULT]["steps"], result.meta[RESULT]["tool_calls"]) == (2, 1)
    assert result.meta[RESULT]["usage"]["total_tokens"] > 0


@every_host
@both_eras
@pytest.mark.parametrize(
    ("output", "said", "structured", "properties"),
    [
        (Sum, {"total": 3, "of": [1, 2]}, {"total": 3, "of": [1, 2]}, {"total", "of"}),
        (list[int], {"result": [1, 2]}, {"result": [1, 2]}, {"result"}),
        (int, {"result": 3}, {"result": 3}, {"result"}),
        (str, None, {"result": "three"}, {"result"}),
    ],
    ids=["model", "list", "int", "str"],
)
async def test_schema_and_content_follow_the_output_type(
    host: str, carrier: Any, output: Any, said: Any, structured: Any, properties: set[str]
) -> None:
    """The tool's output schema is the agent's, and the structured content fits it."""
    server = SERVERS[host]()
    mount(server, calc(output=output), name="sum", description="Sums.")
    model = ScriptedProvider(SUM, [use("final_answer", **said)] if said else "three")

    async with MockClient(server, model, carrier=carrier) as client:
        [offered] = (await client.client.list_tools()).tools
        result = await client.call_tool("sum", {"prompt": "1 + 2?"})

    assert (offered.name, offered.description) == ("sum", "Sums.")
    assert offered.output_schema is not None
    assert set(offered.output_schema["properties"]) == properties
    assert result.structured_content == structured
    assert result.content


@every_host
@both_eras
async def test_a_run_without_an_answer_is_an_error_result(host: str, carrier: Any) -> None:
    """It says how the run ended and keeps its last words; no output schema is in the way."""
    server = SERVERS[host]()
    mount(server, calc(output=Sum))
    model = ScriptedProvider(SUM, *["I do not know"] * 3)

    async with MockClient(server, model, carrier=carrier) as client:
        await client.client.list_tools()
        result = await client.call_tool("calc", {"prompt": "1 + 2?"})

    assert result.is_error
    story, words = [block.text for block in result.content if block.type == "text"]
    assert "stopped with 'failed' after 4 steps" in story
    assert words == "I do not know"
    assert result.structured_content is None
    assert result.meta is not None
    assert result.meta[RESULT]["stop"] == "failed"


@every_host
@pytest.mark.parametrize(
    ("mistaken", "said"),
    [
        ("runs.db", "store='runs.db' is no store: give one, e.g. agentloop.sql_store.SQLiteStore("),
        (Path("runs.db"), "SQLiteStore('runs.db')"),
        (MemoryStore, "is no store"),
        ("postgresql://me:secret@db/runs", "give a store, e.g. SQLStore(URL)"),
    ],
)
def test_what_is_no_store_is_refused_at_once(host: str, mistaken: Any, said: str) -> None:
    def mounted() -> None:
        mount(SERVERS[host](), calc(), store=mistaken)

    for given in (mounted, lambda: resumable(store=mistaken), lambda: Tasks(mistaken)):
        with pytest.raises(DefinitionError, match=re.escape(said)) as caught:
            given()
        assert "secret" not in str(caught.value)


def _ordinary(host: str, server: Any, write: Callable[[str], Any], heard: list[Event]) -> None:
    """Register the same tool function in the way of each host."""
    if host == "low-level":

        @resumable(on_event=heard.append)
        async def on_call(
            ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
        ) -> CallToolResult:
            parts = await write((params.arguments or {})["topic"])
            return CallToolResult(content=[], structured_content={"result": parts})

        async def on_list(ctx: Any, params: Any) -> ListToolsResult:
            return ListToolsResult(tools=[Tool(name="report", input_schema={"type": "object"})])

        server.add_request_handler("tools/list", PaginatedRequestParams, on_list)
        server.add_request_handler("tools/call", CallToolRequestParams, on_call)
        seal(server)
    elif host == "FastMCP":

        @server.tool()
        @resumable(on_event=heard.append)
        async def report(topic: str) -> list[str]:
            return await write(topic)
    else:

        @server.tool(name="report")
        @resumable(on_event=heard.append)
        async def served(topic: str, ctx: Context) -> list[str]:
            return await write(topic)


@every_host
@both_eras
async def test_resumable_on_an_ordinary_tool(host: str, carrier: Any) -> None:
    """Agents inside a tool function ask the client, and share rounds."""

    async def write(topic: str) -> list[str]:
        runs = await gather(*(calc().run(f"{topic} {part}") for part in range(2)))
        return [run.output for run in runs]

    server = SERVERS[host]()
    heard: list[Event] = []
    _ordinary(host, server, write, heard)
    model = ScriptedProvider(
        lambda request: SUM if len(request.messages) == 1 else "three", repeat=True
    )

    async with MockClient(server, model, carrier=carrier) as client:
        result = await client.call_tool("report", {"topic": "x"})

    assert result.structured_content == {"result": ["three", "three"]}
    assert len(client.asks) == 4
    assert client.rounds == (2 if carrier == "rounds" else 0)
    assert heard


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the only one of FastMCP's client
async def test_fastmcp_may_take_its_context_and_has_its_own_client() -> None:
    """FastMCP's context and FastMCP's client work as the SDK's do."""
    server = fastmcp.FastMCP("host")

    @server.tool()
    @resumable
    async def ask(ctx: fastmcp.Context) -> str:
        return (await calc().run(f"request {bool(ctx.request_id)}")).output

    model = ScriptedProvider(SUM, "three")
    handler = sampling_handler(model)
    async with fastmcp.Client(
        server, sampling_handler=handler, sampling_capabilities=TOOLS
    ) as client:
        result = await client.call_tool("ask")

    assert result.data == "three"
    assert model.requests[0].messages[0].content_as_list[0].text == "request True"  # type: ignore[union-attr]


@every_host
@both_eras
@pytest.mark.parametrize(
    ("tools", "manners", "required"),
    [
        ([add], {"sampling": False}, {"sampling": {"tools": {}}}),
        ([add], {"tools": False}, {"sampling": {"tools": {}}}),
        ([], {"sampling": False}, {"sampling": {}}),
    ],
    ids=["no sampling", "no sampling.tools", "no sampling, no tools needed"],
)
async def test_missing_capability(
    host: str, carrier: Any, tools: Any, manners: Any, required: Any
) -> None:
    """Clients that cannot be asked get the protocol's error, which names what is missing."""
    server = SERVERS[host]()
    mount(server, Agent("calc", tools=tools))

    async with MockClient(server, ScriptedProvider(), carrier=carrier, **manners) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("calc", {"prompt": "1 + 2?"})

    assert refused.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY == -32021
    assert refused.value.data == {"requiredCapabilities": required}
    assert "'sampling" in refused.value.message
    assert client.asks == []


@every_host
@both_eras
async def test_plain_sampling_is_enough_without_tools(host: str, carrier: Any) -> None:
    """An agent without tools and output type needs no ``sampling.tools``."""
    server = SERVERS[host]()
    mount(server, Agent("plain"))

    async with MockClient(server, ScriptedProvider("hi"), carrier=carrier, tools=False) as client:
        result = await client.call_tool("plain", {"prompt": "hi"})

    assert result.structured_content == {"result": "hi"}
    assert client.asks[0].tools is None


@every_host
@both_eras
@pytest.mark.parametrize("manners", [{"sampling": False}, {"tools": False}])
async def test_a_provider_answers_for_clients_that_cannot(
    host: str, carrier: Any, manners: Any
) -> None:
    """The one that is mounted comes before the agent's own; clients that can answer do."""
    server = SERVERS[host]()
    mounted = ScriptedProvider(SUM, "mounted")
    own = ScriptedProvider(SUM, "own")
    mount(server, calc(provider=own), name="both", provider=mounted)
    mount(server, calc(provider=own), name="own")

    async with MockClient(server, ScriptedProvider(), carrier=carrier, **manners) as client:
        for name, said in (("both", "mounted"), ("own", "own")):
            result = await client.call_tool(name, {"prompt": "1 + 2?"})
            assert result.structured_content == {"result": said}
        assert client.rounds == 0
    async with MockClient(server, ScriptedProvider("client"), carrier=carrier) as client:
        result = await client.call_tool("both", {"prompt": "1 + 2?"})
        assert result.structured_content == {"result": "client"}


@every_host
async def test_a_client_that_says_no(host: str) -> None:
    """Pushed asks that are denied end the run; over rounds the call ends at the client."""
    server = SERVERS[host]()
    mount(server, calc())

    async with MockClient(server, ScriptedProvider(SUM), carrier="push", denies=2) as client:
        result = await client.call_tool("calc", {"prompt": "1 + 2?"})
    assert result.is_error
    assert result.meta is not None
    assert result.meta[RESULT]["stop"] == "denied"

    async with MockClient(server, ScriptedProvider(SUM), denies=2) as client:
        with pytest.raises(MCPError) as denied:
            await client.call_tool("calc", {"prompt": "1 + 2?"})
    assert denied.value.code == -1


@every_host
@both_eras
async def test_a_fallback_that_fails(host: str, carrier: Any) -> None:
    """A provider's error is a result that says of which kind it is."""
    server = SERVERS[host]()
    mount(server, calc(), provider=ScriptedProvider(SUM, OverloadedError("529")))

    async with MockClient(server, carrier=carrier) as client:
        result = await client.call_tool("calc", {"prompt": "1 + 2?"})

    assert result.is_error
    assert "overloaded" in str(result.content)


@every_host
async def test_state_is_sealed(host: str) -> None:
    """In every host the state leaves encrypted, and one that was changed is refused."""
    server = SERVERS[host]()
    mount(server, calc())
    inside = getattr(server, "_mcp_server", server)

    asked = await call_once(inside, "calc", {"prompt": "secret"})
    assert isinstance(asked, InputRequiredResult)
    assert asked.request_state is not None
    assert asked.request_state.startswith("v1.")
    state, middle = asked.request_state, len(asked.request_state) // 2
    state = state[:middle] + ("B" if state[middle] == "A" else "A") + state[middle + 1 :]
    with pytest.raises(MCPError, match="Invalid or expired requestState"):
        await call_once(inside, "calc", {"prompt": "secret"}, state=state)


@every_host
async def test_state_of_a_changed_agent(host: str) -> None:
    """A deploy in between: every host's client is told which agent has changed."""
    keys = [b"k" * 32]

    def deployed(instructions: str) -> Any:
        security = RequestStateSecurity(keys=keys)
        if host == "low-level":
            server: Any = Server("host")
            seal(server, security)
        elif host == "FastMCP":
            server = fastmcp.FastMCP("host", request_state_security=security)
        else:
            server = MCPServer("host", log_level="CRITICAL", request_state_security=security)
        mount(server, Agent("calc", instructions))
        return getattr(server, "_mcp_server", server)

    asked = await call_once(deployed("Old."), "calc", {"prompt": "x"})
    assert isinstance(asked, InputRequiredResult)
    state = asked.request_state
    try:
        result = await call_once(deployed("New."), "calc", {"prompt": "x"}, state=state)
    except MCPError as error:
        told = (error.code, error.message)
    else:  # FastMCP makes results of errors
        assert isinstance(result, CallToolResult)
        assert result.is_error
        told = (INVALID_PARAMS, str(result.content)) if host == "FastMCP" else (0, "")

    assert told[0] == INVALID_PARAMS
    assert "agent 'calc'" in told[1]
    assert "changed" in told[1]


async def test_low_level_servers_may_share_a_key() -> None:
    """``seal`` takes the keys that several processes share, once; mounting does not seal again."""
    security = RequestStateSecurity(keys=[b"k" * 32])

    def replica() -> Server[Any]:
        server: Server[Any] = Server("host")
        seal(server, security)
        mount(server, calc())
        mount(server, calc(), name="again")
        return server

    asked = await call_once(replica(), "calc", {"prompt": "x"})
    assert isinstance(asked, InputRequiredResult)
    again = await call_once(replica(), "calc", {"prompt": "x"}, state=asked.request_state)
    assert isinstance(again, InputRequiredResult)
    assert again.input_requests == asked.input_requests


async def test_agents_beside_the_tools_of_a_low_level_server() -> None:
    """The server's own tools are listed and called as before, page by page; agents come last."""
    pages = {None: ("first", "2"), "2": ("second", None)}

    async def on_list(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        name, following = pages[params.cursor if params else None]
        tool = Tool(name=name, input_schema={"type": "object"})
        return ListToolsResult(tools=[tool], next_cursor=following)

    async def on_call(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(text=f"own {params.name}")])

    server: Server[Any] = Server("host", on_list_tools=on_list, on_call_tool=on_call)
    mount(server, calc())
    mount(server, calc(), name="calc2")

    async with MockClient(server, ScriptedProvider("three")) as client:
        first = await client.client.list_tools()
        second = await client.client.list_tools(cursor=first.next_cursor)
        own = await client.call_tool("first", {})
        mounted = await client.call_tool("calc", {"prompt": "1 + 2?"})
        wrong = await client.call_tool("calc2", {})

    assert [tool.name for tool in first.tools] == ["first"]
    assert [tool.name for tool in second.tools] == ["second", "calc", "calc2"]
    assert own.content == [TextContent(text="own first")]
    assert mounted.structured_content == {"result": "three"}
    assert wrong.is_error
    assert "prompt: required" in str(wrong.content)


async def test_unknown_tools_of_a_low_level_server() -> None:
    """A server without tools of its own refuses names that it does not know."""
    server: Server[Any] = Server("host")
    mount(server, calc())

    async with MockClient(server, ScriptedProvider()) as client:
        with pytest.raises(MCPError, match="Unknown tool: nothing"):
            await client.call_tool("nothing", {})


async def test_what_cannot_be_served_is_said_at_once() -> None:
    """Wrong servers and functions are the author's mistakes, with a clear error."""
    with pytest.raises(DefinitionError, match="mount"):
        mount(object(), calc())
    with pytest.raises(DefinitionError, match="async"):
        resumable(lambda: None)  # type: ignore[arg-type, return-value]

    @resumable
    async def nobody_calls_this(topic: str) -> str:
        return topic

    with pytest.raises(DefinitionError, match="not called by an MCP host"):
        await nobody_calls_this("x")
