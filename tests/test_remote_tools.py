"""Tools that come from MCP servers: the same one, or another one behind a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import fastmcp
import pytest
from mcp import Client, MCPError
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError as HostToolError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    CreateMessageRequestParams,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
    ToolResultContent,
)

from agentloop import Agent
from agentloop.errors import DefinitionError
from agentloop.mcp import resumable, tools_from
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use
from tests.carriers.functions import asked
from tests.carriers.kit import PIXEL, SECRET

Open = Callable[[], AbstractAsyncContextManager[Any]]


def _fill(server: Any) -> Any:
    """Give a server of either kind the same tools."""

    @server.tool(annotations=ToolAnnotations(title="Times", read_only_hint=True))
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    @server.tool()
    async def refuse() -> str:
        """Say no."""
        raise HostToolError("No: full.")

    @server.tool()
    async def look() -> CallToolResult:
        """Give a picture."""
        picture = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
        return CallToolResult.model_validate({"content": [picture]})

    return server


def own_server() -> MCPServer:
    return _fill(MCPServer("other", log_level="CRITICAL"))


def own_fastmcp() -> fastmcp.FastMCP[Any]:
    server = fastmcp.FastMCP[Any]("other")

    @server.tool
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    @server.tool
    async def refuse() -> str:
        """Say no."""
        raise fastmcp.exceptions.ToolError("No: full.")

    @server.tool
    async def look() -> fastmcp.utilities.types.Image:
        """Give a picture."""
        import base64

        return fastmcp.utilities.types.Image(data=base64.b64decode(PIXEL), format="png")

    return server


@asynccontextmanager
async def from_server() -> AsyncIterator[Any]:
    yield own_server()


@asynccontextmanager
async def from_fastmcp() -> AsyncIterator[Any]:
    yield own_fastmcp()


@asynccontextmanager
async def from_client() -> AsyncIterator[Any]:
    async with Client(own_server()) as client:
        yield client


@asynccontextmanager
async def from_old_client() -> AsyncIterator[Any]:
    async with Client(own_server(), mode="legacy") as client:
        yield client


@asynccontextmanager
async def from_session() -> AsyncIterator[Any]:
    async with Client(own_server()) as client:
        yield client.session


@asynccontextmanager
async def from_fastmcp_client() -> AsyncIterator[Any]:
    async with fastmcp.Client(own_fastmcp()) as client:
        yield client


SOURCES: dict[str, Open] = {
    "MCPServer": from_server,
    "FastMCP": from_fastmcp,
    "Client": from_client,
    "Client, 2025-11-25": from_old_client,
    "ClientSession": from_session,
}


async def results_of(source: Any, *calls: Any, **options: Any) -> list[ToolResultContent]:
    """What the calls of one turn give, with the tools of ``source``."""
    agent = Agent("caller", tools=await tools_from(source, **options))
    run = await agent.run("go", provider=ScriptedProvider(list(calls), "done"))
    return run.messages[2].content_as_list  # type: ignore[return-value]


def text_of(result: ToolResultContent) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def check(open_source: Open) -> None:
    """A source's tools are listed with their schemas, and give results, errors and pictures."""
    async with open_source() as source:
        tools = {tool.name: tool for tool in await tools_from(source, prefix="other_")}
        assert list(tools) == ["other_multiply", "other_refuse", "other_look"]
        times = tools["other_multiply"]
        assert times.description == "Multiply two numbers."
        assert set(times.input_schema["properties"]) == {"a", "b"}
        assert times.input_schema["required"] == ["a", "b"]

        good, bad, refused, picture = await results_of(
            source,
            use("other_multiply", a=2, b=3),
            use("other_multiply", a="two"),
            use("other_refuse"),
            use("other_look"),
            prefix="other_",
        )
    assert text_of(good) == "6"
    assert not good.is_error
    assert bad.is_error
    assert "b" in text_of(bad)
    assert refused.is_error
    assert "No: full." in text_of(refused)
    assert [(block.type, block.data) for block in picture.content] == [("image", PIXEL)]  # type: ignore[union-attr]


@pytest.mark.parametrize("source", SOURCES)
async def test_every_kind_of_source(source: str) -> None:
    """Tools from a server of the SDK's or FastMCP's, and through the SDK's clients."""
    await check(SOURCES[source])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the only one of FastMCP's client
async def test_a_client_of_fastmcp() -> None:
    """Tools through FastMCP's own client."""
    await check(from_fastmcp_client)


async def test_only_some_of_them() -> None:
    """``only`` picks by the server's own names, and says which ones there are."""
    async with from_client() as source:
        picked = await tools_from(source, only={"look"}, prefix="x.")
        assert [tool.name for tool in picked] == ["x.look"]
        with pytest.raises(DefinitionError, match=r"\['loop'\]; it has \['look', 'multiply'"):
            await tools_from(source, only={"look", "loop"})


async def test_two_servers_need_prefixes() -> None:
    """Tools of the same name from two servers are told apart by prefixes, or refused."""
    both = [*await tools_from(own_server()), *await tools_from(own_server())]
    with pytest.raises(DefinitionError, match="two tools are called 'multiply'"):
        Agent("caller", tools=both)

    both = [*await tools_from(own_server()), *await tools_from(own_server(), prefix="b_")]
    assert len(Agent("caller", tools=both).tools) == 6


async def test_not_a_source() -> None:
    """Anything else is the author's mistake."""
    with pytest.raises(DefinitionError, match="tools_from"):
        await tools_from(object())


def _paged() -> Server[Any]:
    async def on_list(ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        page = int(params.cursor or "0") if params else 0
        tool = Tool(name=f"tool{page}", input_schema={"type": "object"})
        return ListToolsResult(tools=[tool], next_cursor=str(page + 1) if page < 2 else None)

    async def on_call(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        if params.name == "tool2":
            raise MCPError(code=-32602, message="not today")
        return CallToolResult(
            content=[TextContent(text=f"{params.name} {params.arguments}")],
            structured_content={"deep": {"er": [1]}},
        )

    return Server("paged", on_list_tools=on_list, on_call_tool=on_call)


@pytest.mark.parametrize("inner", [False, True], ids=["Client", "ClientSession"])
async def test_all_pages_protocol_errors_and_structured_content(inner: bool) -> None:
    """All pages are listed; a protocol error is a tool error; structured content is kept."""
    async with Client(_paged()) as client:
        source = client.session if inner else client
        assert [tool.name for tool in await tools_from(source)] == ["tool0", "tool1", "tool2"]
        good, refused = await results_of(source, use("tool0", x=[1]), use("tool2"))

    assert text_of(good) == "tool0 {'x': [1]}"
    assert good.structured_content == {"deep": {"er": [1]}}
    assert refused.is_error
    assert text_of(refused) == "not today (code -32602)"


async def test_a_server_that_has_gone() -> None:
    """A connection that is closed is a tool error, not the end of the run."""
    async with Client(own_server()) as client:
        tools = await tools_from(client)
    run = await Agent("caller", tools=tools).run(
        "go", provider=ScriptedProvider([use("multiply", a=1, b=1)], "done")
    )

    assert run.output == "done"
    assert run.messages[2].content_as_list[0].is_error  # type: ignore[union-attr]


async def test_slow_servers_time_out() -> None:
    """``timeout`` bounds each call."""
    server = MCPServer("slow", log_level="CRITICAL")

    @server.tool()
    async def wait() -> str:
        import anyio

        await anyio.sleep(30)
        return "late"

    async with Client(server) as client:
        [late] = await results_of(client, use("wait"), timeout=0.05)

    assert late.is_error
    assert "Timed out after 0.05 s" in text_of(late)


async def test_exceptions_of_the_same_server_stay_masked() -> None:
    """What the server hides from its clients, it hides from models."""
    server = MCPServer("other", log_level="CRITICAL")

    @server.tool()
    async def crash() -> str:
        raise ValueError(SECRET)

    [crashed] = await results_of(server, use("crash"))

    assert crashed.is_error
    assert SECRET not in text_of(crashed)


def _asking(server: Any) -> None:
    """A tool that asks its caller itself."""

    @server.tool()
    @resumable
    async def ask(ctx: Context) -> str:
        return (await Agent("inner").run("inner")).output


@pytest.mark.parametrize("carrier", ["push", "rounds"])
@pytest.mark.parametrize("host", ["MCPServer", "FastMCP"])
async def test_agents_in_tools_of_the_same_server(host: str, carrier: Any) -> None:
    """A resumable tool that a loop calls is part of the call: its asks go to the same client."""
    server: Any = MCPServer("own", log_level="CRITICAL")
    if host == "FastMCP":
        server = fastmcp.FastMCP("own")
    inner, outer = Agent("inner"), Agent("outer", tools=[])

    async def ask() -> str:
        return " + ".join([(await inner.run(prompt)).output for prompt in ("one", "two")])

    async def lead() -> str:
        agent = Agent(outer.name, tools=await tools_from(server, only={"ask"}))
        return (await agent.run("lead")).output

    for function in (ask, lead):
        _register(server, host, function)

    def says(request: CreateMessageRequestParams) -> Line:
        prompt, replies = asked(request)
        if prompt == "lead" and not replies:
            return [use("ask", id="a"), use("ask", id="b")]
        return f"re {prompt}"

    model = ScriptedProvider(says, repeat=True)
    async with MockClient(server, model, carrier=carrier) as client:
        result = await client.call_tool("lead")

    assert result.structured_content == {"result": "re lead"}
    told = [text_of(result) for result in client.asks[-1].messages[-1].content_as_list]  # type: ignore[arg-type]
    assert told == ["re one + re two"] * 2
    assert client.rounds == (4 if carrier == "rounds" else 0)


def _register(server: Any, host: str, function: Callable[[], Any]) -> None:
    if host == "FastMCP":
        server.tool(resumable(function), name=function.__name__)
    else:

        @resumable
        async def taking_context(ctx: Context) -> str:
            return await function()

        server.add_tool(taking_context, name=function.__name__)


async def test_a_tool_that_asks_for_input_by_itself() -> None:
    """A loop cannot pass on what its tools ask of their caller: the model is told so."""
    server = MCPServer("other", log_level="CRITICAL")

    @server.tool()
    async def ask(ctx: Context) -> InputRequiredResult:
        """Ask by hand."""
        return InputRequiredResult(request_state="mine")

    async def lead(ctx: Context) -> str:
        agent = Agent("lead", tools=await tools_from(server, only={"ask"}))
        return (await agent.run("lead")).output

    server.add_tool(resumable(lead))
    async with MockClient(server, ScriptedProvider([use("ask")], "told")) as client:
        result = await client.call_tool("lead")

    assert result.structured_content == {"result": "told"}
    [answer] = client.asks[-1].messages[-1].content_as_list
    assert answer.is_error  # type: ignore[union-attr]
    assert "asks its caller for input" in answer.model_dump_json()


@pytest.mark.parametrize("inner", [False, True], ids=["Client", "ClientSession"])
async def test_a_remote_tool_that_asks_for_input(inner: bool) -> None:
    """A client with a model answers its server's asks itself; a bare session cannot."""
    from agentloop.mcp.callback import TOOLS, sampling_callback

    server = MCPServer("other", log_level="CRITICAL")
    _asking(server)
    callback = sampling_callback(ScriptedProvider("from the client's model"))

    async with Client(server, sampling_callback=callback, sampling_capabilities=TOOLS) as client:
        [result] = await results_of(client.session if inner else client, use("ask"))

    expected = "asks its caller for input" if inner else "from the client's model"
    assert expected in text_of(result)


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_same_server_tools_run_in_the_request(carrier: Any) -> None:
    """They see the request that is served, and its caller; but not its state and its answers."""
    server = MCPServer("own", log_level="CRITICAL")
    seen: list[Any] = []

    @server.tool()
    async def whoami(ctx: Context) -> str:
        """Say who asks."""
        seen.append((ctx.request_id, ctx.input_responses, ctx.request_state))
        info = ctx.request_context.session.client_params
        return info.client_info.name if info and info.client_info else "nobody"

    @server.tool()
    @resumable
    async def outer(ctx: Context) -> str:
        seen.append((ctx.request_id,))
        agent = Agent("outer", tools=await tools_from(server, only={"whoami"}))
        return (await agent.run("outer")).output

    model = ScriptedProvider([use("whoami"), use("whoami")], "done")
    async with MockClient(server, model, carrier=carrier) as client:
        result = await client.call_tool("outer")

    assert result.structured_content == {"result": "done"}
    told = client.asks[-1].messages[-1].content_as_list
    assert "nobody" not in str(told)
    calls = [entry for entry in seen if len(entry) == 3]
    served = [entry[0] for entry in seen if len(entry) == 1]
    assert len(calls) == 2
    assert all(entry[0] in served for entry in calls)
    assert all(not answers and state is None for _, answers, state in calls)


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_same_server_tools_of_fastmcp(carrier: Any) -> None:
    """The same in FastMCP."""
    server = fastmcp.FastMCP("own")
    seen: list[Any] = []

    @server.tool
    async def whoami(ctx: fastmcp.Context) -> str:
        """Say who asks."""
        seen.append(bool(ctx.request_id))
        return "somebody"

    @server.tool
    @resumable
    async def outer() -> str:
        agent = Agent("outer", tools=await tools_from(server, only={"whoami"}))
        return (await agent.run("outer")).output

    model = ScriptedProvider([use("whoami")], "done")
    async with MockClient(server, model, carrier=carrier) as client:
        result = await client.call_tool("outer")

    assert result.structured_content == {"result": "done"}
    assert "somebody" in client.asks[-1].messages[-1].model_dump_json()
    assert seen == [True]
