"""Several providers, of which one answers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CreateMessageRequestParams, ErrorData, SamplingMessage, TextContent

from agentloop import Agent, Limits, Stop
from agentloop.errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    DefinitionError,
    DeniedError,
    OverloadedError,
    ProviderError,
)
from agentloop.fallback import FALLS_BACK_ON, Fallback
from agentloop.mcp.callback import sampling_callback
from agentloop.mcp.push import PushProvider
from agentloop.mcp.request import request_in
from agentloop.meta import Reply
from agentloop.testing import MockClient
from agentloop_providers import ScriptedProvider


def asking(text: str = "Hello?") -> CreateMessageRequestParams:
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequestParams(messages=[message], max_tokens=100)


def said(reply: Reply) -> str:
    blocks = reply.content if isinstance(reply.content, list) else [reply.content]
    return "".join(block.text for block in blocks if block.type == "text")


class Vendor:
    """A provider with a name of its own that raises what it was given, or answers with its name."""

    def __init__(self, name: str, *outcomes: ProviderError | None) -> None:
        self.name = name
        self.outcomes = list(outcomes)
        self.asked = 0

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        self.asked += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        return await ScriptedProvider(self.name).sample(request)


class Silent:
    """Never answers."""

    name = "silent"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError


async def test_the_first_answers_and_the_second_is_not_asked():
    second = Vendor("b")
    assert said(await Fallback(Vendor("a"), second).sample(asking())) == "a"
    assert second.asked == 0


@pytest.mark.parametrize("kind", FALLS_BACK_ON)
async def test_the_next_one_answers_where_the_first_cannot(kind: type[ProviderError]):
    assert said(await Fallback(Vendor("a", kind("no")), Vendor("b")).sample(asking())) == "b"


@pytest.mark.parametrize("error", [BadRequestError("bad"), ContextOverflowError("too long")])
async def test_an_error_that_blames_the_request_is_raised_at_once(error: ProviderError):
    second = Vendor("b")
    with pytest.raises(type(error)) as caught:
        await Fallback(Vendor("a", error), second).sample(asking())
    assert caught.value is error
    assert second.asked == 0


async def test_a_provider_with_a_larger_window_can_be_the_fallback():
    fallback = Fallback(
        Vendor("small", ContextOverflowError("too long")),
        Vendor("large"),
        on=(*FALLS_BACK_ON, ContextOverflowError),
    )
    assert said(await fallback.sample(asking())) == "large"


async def test_a_no_means_no_where_denials_are_left_out():
    on = tuple(kind for kind in FALLS_BACK_ON if kind is not DeniedError)
    with pytest.raises(DeniedError):
        await Fallback(Vendor("a", DeniedError("no")), Vendor("b"), on=on).sample(asking())


async def test_every_ask_begins_with_the_first():
    first, second = Vendor("a", OverloadedError("busy")), Vendor("b")
    fallback = Fallback(first, second)
    assert [said(await fallback.sample(asking())) for _ in range(3)] == ["b", "a", "a"]


async def test_sticky_stays_with_the_one_that_answered_until_it_fails():
    first = Vendor("a", OverloadedError("busy"))
    second = Vendor("b", None, None, OverloadedError("busy"))
    fallback = Fallback(first, second, sticky=True)
    assert [said(await fallback.sample(asking())) for _ in range(4)] == ["b", "b", "a", "a"]
    assert first.asked == 3


async def test_all_failures_are_told_and_kept():
    failures = [OverloadedError("429"), AuthenticationError("bad key"), OverloadedError("503")]
    vendors = [Vendor(name, error) for name, error in zip("abc", failures, strict=True)]
    with pytest.raises(OverloadedError) as caught:
        await Fallback(*vendors).sample(asking())
    assert str(caught.value) == (
        "no provider could answer: a: overloaded: 429; b: authentication: bad key; "
        "c: overloaded: 503"
    )
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert list(caught.value.__cause__.exceptions) == failures


async def test_the_error_is_of_the_kind_of_the_last_one():
    fallback = Fallback(
        Vendor("a", OverloadedError("busy")), Vendor("b", BadRequestError("bad", status=400))
    )
    with pytest.raises(
        BadRequestError, match=r"a: overloaded: busy; b: bad_request: bad"
    ) as caught:
        await fallback.sample(asking())
    assert caught.value.status == 400


async def test_a_silent_provider_leaves_time_for_the_next_one():
    agent = Agent("patient", limits=Limits(ask_seconds=0.4))
    result = await agent.run("Hello?", provider=Fallback(Silent(), Vendor("b")))
    assert (result.stop, result.text) == (Stop.DONE, "b")


async def test_seconds_bound_each_provider_but_the_last():
    with anyio.fail_after(5):
        fallback = Fallback(Silent(), Silent(), Vendor("c"), seconds=0.05)
        assert said(await fallback.sample(asking())) == "c"
        with anyio.move_on_after(0.3) as scope:
            await Fallback(Silent(), Silent(), seconds=0.05).sample(asking())
    assert scope.cancelled_caught


async def test_cancellation_is_no_failure():
    second = Vendor("b")
    with anyio.move_on_after(0.05):
        await Fallback(Silent(), second, seconds=10).sample(asking())
    assert second.asked == 0


async def test_a_run_that_everybody_denied_is_denied():
    fallback = Fallback(Vendor("a", DeniedError("no")), Vendor("b", DeniedError("never")))
    result = await Agent("asker").run("Hello?", provider=fallback)
    assert result.stop is Stop.DENIED
    assert result.error == "denied: no provider could answer: a: denied: no; b: denied: never"


def test_there_has_to_be_a_provider():
    with pytest.raises(DefinitionError, match="at least one"):
        Fallback()


def test_its_name_tells_who_is_in_it():
    assert Fallback(Vendor("a"), Vendor("b")).name == "fallback(a, b)"


def asking_server() -> MCPServer:
    """A server that asks the client, and its own model where the client will not answer."""
    server = MCPServer("host")
    agent = Agent("writer", limits=Limits(ask_seconds=0.6))

    @server.tool()
    async def write(ctx: Context) -> str:
        request = request_in((ctx,), {})
        assert request is not None
        client = PushProvider(request)
        return (await agent.run("Write", provider=Fallback(client, Vendor("own")))).text

    return server


@pytest.mark.parametrize("manner", ["denies", "times_out", "ignores"])
async def test_the_server_goes_on_with_its_own_model_when_the_client_will_not(manner: str):
    model = ScriptedProvider("from the client", repeat=True)
    async with MockClient(asking_server(), model, carrier="push", **{manner: True}) as client:  # type: ignore[arg-type]
        result = await client.call_tool("write")
    assert said_by_tool(result) == "own"


@pytest.mark.parametrize(
    "answer",
    [
        sampling_callback(ScriptedProvider(OverloadedError("429"), repeat=True)),
        ErrorData(code=-32000, message="Rate limit exceeded, try again later"),
        ErrorData(code=-32603, message="429 Too Many Requests"),
    ],
)
async def test_the_server_goes_on_with_its_own_model_when_the_client_is_rate_limited(answer: Any):
    async def say(context: Any, params: Any) -> Any:
        return answer if isinstance(answer, ErrorData) else await answer(context, params)

    async with Client(asking_server(), mode="legacy", sampling_callback=say) as client:
        result = await client.call_tool("write", {})
    assert said_by_tool(result) == "own"


def said_by_tool(result: object) -> str:
    return result.content[0].text  # type: ignore[attr-defined]
