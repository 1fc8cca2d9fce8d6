"""Any provider as the model of a real MCP client, of two makes and in both protocol eras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastmcp
import pytest
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    REQUEST_TIMEOUT,
    CreateMessageRequestParams,
    ImageContent,
    SamplingMessage,
    TextContent,
    Tool,
)

from agentloop import Agent, Usage
from agentloop.errors import (
    AskTimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DeniedError,
    OverloadedError,
    ProviderError,
)
from agentloop.mcp import resumable
from agentloop.mcp.callback import (
    ERROR_KEY,
    TOOLS,
    USER_REJECTED,
    sampling_callback,
    sampling_handler,
)
from agentloop.meta import PROVIDER_KEY, USAGE_KEY
from agentloop.provider import Provider
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use

Connect = Callable[[MCPServer, Provider], Any]


def mcp_legacy(server: MCPServer, provider: Provider) -> Any:
    return Client(
        server,
        mode="legacy",
        sampling_callback=sampling_callback(provider),
        sampling_capabilities=TOOLS,
    )


def mcp_modern(server: MCPServer, provider: Provider) -> Any:
    return Client(
        server, sampling_callback=sampling_callback(provider), sampling_capabilities=TOOLS
    )


def fastmcp_legacy(server: MCPServer, provider: Provider) -> Any:
    return fastmcp.Client(
        server,
        mode="legacy",
        sampling_handler=sampling_handler(provider),
        sampling_capabilities=TOOLS,
    )


def fastmcp_modern(server: MCPServer, provider: Provider) -> Any:
    return fastmcp.Client(
        server, sampling_handler=sampling_handler(provider), sampling_capabilities=TOOLS
    )


legacy = pytest.mark.parametrize(
    ("anyio_backend", "connect"),
    [("asyncio", mcp_legacy), ("trio", mcp_legacy), ("asyncio", fastmcp_legacy)],
)
"""Clients that are asked by requests of the server. FastMCP's knows asyncio only."""

both_eras = pytest.mark.parametrize(
    ("anyio_backend", "connect"),
    [
        ("asyncio", mcp_legacy),
        ("asyncio", mcp_modern),
        ("trio", mcp_legacy),
        ("trio", mcp_modern),
        ("asyncio", fastmcp_legacy),
        ("asyncio", fastmcp_modern),
    ],
)


class Asking:
    """A server with a tool that asks the client once, and what came of it."""

    def __init__(self, **more: Any) -> None:
        self.answer: Any = None
        self.error: MCPError | None = None
        self.server = MCPServer("asking")

        @self.server.tool()
        async def ask(ctx: Context) -> str:
            message = SamplingMessage(role="user", content=TextContent(text="Hello?"))
            try:
                self.answer = await ctx.session.create_message([message], max_tokens=50, **more)
            except MCPError as error:
                self.error = error
            return "asked"

    async def be_called(self, connect: Connect, provider: Provider) -> Any:
        async with connect(self.server, provider) as client:
            await client.call_tool("ask", {})
        return self.answer


LOOK = Tool(name="look", input_schema={"type": "object"})


@legacy
async def test_an_answer_with_tools_arrives_whole(connect: Connect):
    state = {PROVIDER_KEY: {"form": [{"type": "thinking", "signature": "c2ln"}]}}
    whole = reply("Let me look.", use("look", id="c1", where="up"), usage=Usage(output_tokens=7))
    assert whole.meta is not None
    whole.meta |= state
    answer = await Asking(tools=[LOOK]).be_called(connect, ScriptedProvider(whole))
    assert answer.model_dump() == whole.model_dump()
    assert answer.meta[USAGE_KEY] == {"output_tokens": 7}


@legacy
async def test_the_request_arrives_whole(connect: Connect):
    script = ScriptedProvider("Hi.")
    await Asking(system_prompt="Be brief.", temperature=0.5, stop_sequences=["."]).be_called(
        connect, script
    )
    (asked,) = script.requests
    assert (asked.system_prompt, asked.temperature, asked.stop_sequences, asked.max_tokens) == (
        "Be brief.", 0.5, ["."], 50,
    )  # fmt: skip


@legacy
@pytest.mark.parametrize(
    ("blocks", "single"),
    [
        ([TextContent(text="one")], TextContent(text="one")),
        (
            [TextContent(text="one", _meta={"example.com/k": 1})],
            TextContent(text="one", _meta={"example.com/k": 1}),
        ),
        ([TextContent(text="one"), TextContent(text="two")], TextContent(text="one\n\ntwo")),
        ([], TextContent(text="")),
        (
            [ImageContent(data="aaaa", mime_type="image/png")],
            ImageContent(data="aaaa", mime_type="image/png"),
        ),
        (
            [ImageContent(data="aaaa", mime_type="image/png"), TextContent(text="a cat")],
            TextContent(text="a cat"),
        ),
    ],
)
async def test_an_answer_without_tools_is_a_single_block(
    connect: Connect, blocks: list[Any], single: Any
):
    whole = reply(*blocks, stop_reason="maxTokens", usage=Usage(output_tokens=7))
    answer = await Asking().be_called(connect, ScriptedProvider(whole))
    assert answer.content == single
    assert (answer.stop_reason, answer.meta) == ("maxTokens", whole.meta)


class Strange(ProviderError):
    code = "strange"


@legacy
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeniedError("the user said: never ever"), USER_REJECTED),
        (BadRequestError("never ever"), INVALID_PARAMS),
        (ContextOverflowError("never ever"), INVALID_PARAMS),
        (AskTimeoutError("never ever"), REQUEST_TIMEOUT),
        (AuthenticationError("key sk-123 is never ever valid"), INTERNAL_ERROR),
        (OverloadedError("never ever"), INTERNAL_ERROR),
        (Strange("never ever"), INTERNAL_ERROR),
    ],
)
async def test_errors_say_of_which_kind_they_are_and_no_more(
    connect: Connect, error: ProviderError, code: int
):
    asking = Asking()
    await asking.be_called(connect, ScriptedProvider(error))
    assert asking.error is not None
    assert asking.error.code == code
    assert asking.error.error.data == {
        ERROR_KEY: {"code": error.code, "retryable": error.retryable}
    }
    assert "never ever" not in asking.error.message


@legacy
async def test_a_provider_that_breaks_its_contract_is_an_error_that_tells_nothing(connect: Connect):
    asking = Asking()
    await asking.be_called(connect, ScriptedProvider(KeyError("secret")))
    assert asking.error is not None
    assert (asking.error.code, asking.error.message) == (
        INTERNAL_ERROR, "the model could not be asked",
    )  # fmt: skip


class Remembering:
    """A provider that must get its own state back as it was."""

    name = "remembering"

    def __init__(self) -> None:
        self.states: list[Any] = []

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        said = [message for message in request.messages if message.role == "assistant"]
        self.states.append([message.meta and message.meta.get(PROVIDER_KEY) for message in said])
        number = len(said) + 1
        answer = reply(use("add", id=f"c{number}", a=1, b=2)) if number < 3 else reply("3")
        answer.meta = {PROVIDER_KEY: {"form": [{"thinking": f"thought {number}"}]}}
        return answer


@both_eras
async def test_a_provider_s_state_comes_back_over_every_carrier(connect: Connect):
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    server = MCPServer("host")
    agent = Agent("adder", tools=[add])

    @server.tool()
    @resumable
    async def run(ctx: Context) -> str:
        return (await agent.run("1+2?")).text

    provider = Remembering()
    async with connect(server, provider) as client:
        result = await client.call_tool("run", {})
    assert result.content[0].text == "3"
    first, second = ({"form": [{"thinking": f"thought {n}"}]} for n in (1, 2))
    assert provider.states == [[], [first], [first, second]]
