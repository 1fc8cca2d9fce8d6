"""The mock client does what real clients do, and what they should not do."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import InputRequiredRoundsExceededError, MCPError
from mcp.server.mcpserver import MCPServer
from mcp_types import REQUEST_TIMEOUT, InputRequiredResult

from agentloop import Agent, Limits
from agentloop.errors import DeniedError, OverloadedError
from agentloop.mcp import mount
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use

GO = {"prompt": "go"}
CALL = [use("add", a=1, b=2)]
both_eras = pytest.mark.parametrize("carrier", ["push", "rounds"])


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def hosting(**limits: Any) -> MCPServer:
    server = MCPServer("host", log_level="CRITICAL")
    mount(server, Agent("calc", tools=[add], limits=Limits(**limits)))
    return server


def talking(*lines: Line, carrier: Any, limits: Any = None, **manners: Any) -> MockClient:
    return MockClient(
        hosting(**(limits or {})), ScriptedProvider(*lines), carrier=carrier, **manners
    )


def stop_of(result: Any) -> str:
    return result.meta["dev.agentloop/result"]["stop"]


@pytest.mark.parametrize(("carrier", "version"), [("push", "2025-11-25"), ("rounds", "2026-07-28")])
async def test_the_carrier_picks_the_era(carrier: Any, version: str) -> None:
    """It is the SDK's own client, which negotiates that version with the server."""
    async with talking(CALL, "three", carrier=carrier) as client:
        assert client.client.protocol_version == version
        result = await client.call_tool("calc", GO)

    assert result.structured_content == {"result": "three"}
    assert [len(ask.messages) for ask in client.asks] == [1, 3]
    assert client.rounds == (2 if carrier == "rounds" else 0)
    assert client.progress == ["calc: step 1", "calc: add", "calc: step 2"]


@both_eras
async def test_counters_are_of_the_last_call(carrier: Any) -> None:
    """Asks add up; rounds and progress begin anew with each call."""
    async with talking(CALL, "three", "hi", carrier=carrier) as client:
        await client.call_tool("calc", GO)
        await client.call_tool("calc", GO)

    assert len(client.asks) == 3
    assert client.rounds == (1 if carrier == "rounds" else 0)
    assert client.progress == ["calc: step 1"]


async def test_rounds_can_be_looked_at() -> None:
    """``between_rounds`` sees what leaves the server before it is answered."""
    seen: list[InputRequiredResult] = []

    async def look(round_: InputRequiredResult) -> None:
        assert len(client.asks) == len(seen)
        seen.append(round_)

    async with talking(CALL, "three", carrier="rounds") as client:
        await client.call_tool("calc", GO, between_rounds=look)

    assert [list(round_.input_requests or {}) for round_ in seen] == [["0:0"], ["0:1"]]
    assert all(round_.request_state for round_ in seen)


async def test_denials() -> None:
    """A denied ask ends a pushed run; over rounds it ends the call, unknown to the server."""
    async with talking(CALL, "three", carrier="push", denies=2) as client:
        result = await client.call_tool("calc", GO)
    assert stop_of(result) == "denied"
    assert len(client.asks) == 2

    async with talking(CALL, "three", carrier="rounds", denies={2, 3}) as client:
        with pytest.raises(MCPError, match="rejected") as denied:
            await client.call_tool("calc", GO)
    assert denied.value.code == -1


@both_eras
async def test_other_asks_are_answered(carrier: Any) -> None:
    """Only the asks whose numbers are given are denied."""
    async with talking(CALL, "three", carrier=carrier, denies={3}, times_out=4) as client:
        result = await client.call_tool("calc", GO)

    assert stop_of(result) == "done"


async def test_asks_that_time_out() -> None:
    """The client's model takes too long: failed where the server hears of it."""
    async with talking("hi", carrier="push", times_out=True) as client:
        result = await client.call_tool("calc", GO)
    assert stop_of(result) == "failed"
    assert "timeout" in str(result.content)

    async with talking("hi", carrier="rounds", times_out=True) as client:
        with pytest.raises(MCPError) as late:
            await client.call_tool("calc", GO)
    assert late.value.code == REQUEST_TIMEOUT


async def test_asks_that_are_never_answered() -> None:
    """The server waits as long as the limit says; over rounds only the client waits."""
    limits = {"ask_seconds": 0.05}
    async with talking("hi", carrier="push", limits=limits, ignores=1) as client:
        with anyio.fail_after(5):
            result = await client.call_tool("calc", GO)
    assert stop_of(result) == "failed"
    assert "no answer within 0.05 s" in str(result.content)

    async with talking("hi", carrier="rounds", limits=limits, ignores=1) as client:
        with anyio.move_on_after(0.1) as waited:
            await client.call_tool("calc", GO)
    assert waited.cancelled_caught


@both_eras
async def test_going_away(carrier: Any) -> None:
    """The call ends at the ask at which the client disconnects."""
    async with talking(CALL, "three", carrier=carrier, disconnects=2) as client:
        with anyio.fail_after(5), pytest.raises(ConnectionError, match="at ask 2"):
            await client.call_tool("calc", GO)

    assert len(client.asks) == 2


async def test_giving_up_after_some_rounds() -> None:
    """The cap on rounds is the SDK's error; push knows no rounds."""
    script = [[use("add", a=n, b=1)] for n in range(4)]
    async with talking(*script, "done", carrier="rounds", max_rounds=3) as client:
        with pytest.raises(InputRequiredRoundsExceededError):
            await client.call_tool("calc", GO)

    async with talking(*script, "done", carrier="push", max_rounds=3) as client:
        assert stop_of(await client.call_tool("calc", GO)) == "done"


@both_eras
@pytest.mark.parametrize("lie", ["endTurn", "x-none-of-your-business", lambda reason: None])
async def test_any_stop_reason(carrier: Any, lie: Any) -> None:
    """Whatever the client says about why it stopped, the content decides."""
    async with talking(CALL, "three", carrier=carrier, stop_reason=lie) as client:
        result = await client.call_tool("calc", GO)

    assert result.structured_content == {"result": "three"}
    assert stop_of(result) == "done"


@both_eras
async def test_no_provider_means_no_sampling(carrier: Any) -> None:
    """Without a model the client declares nothing."""
    async with MockClient(hosting(), carrier=carrier) as client:
        with pytest.raises(MCPError, match=r"sampling\.tools"):
            await client.call_tool("calc", GO)


@pytest.mark.parametrize(
    ("error", "stop", "code"),
    [(DeniedError("never"), "denied", -1), (OverloadedError("529"), "failed", -32603)],
)
async def test_a_model_that_fails(error: Exception, stop: str, code: int) -> None:
    """The provider's errors reach the server as a client's would."""
    async with talking(error, carrier="push") as client:
        assert stop_of(await client.call_tool("calc", GO)) == stop

    async with talking(error, carrier="rounds") as client:
        with pytest.raises(MCPError) as raised:
            await client.call_tool("calc", GO)
    assert raised.value.code == code
