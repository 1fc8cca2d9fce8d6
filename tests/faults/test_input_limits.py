"""How much a peer may send: each limit has a default, a setting, and an error that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    ErrorData,
    ImageContent,
    SamplingMessage,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from mcp_types import Tool as Offered
from pydantic import BaseModel

from agentloop import Agent, Limits, ask_user, tool
from agentloop.errors import DefinitionError
from agentloop.mcp import InputLimits, resumable, tools_from
from agentloop.mcp.callback import sampling_callback
from agentloop.mcp.request_limits import RequestLimits
from agentloop.run import Stop
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.kit import (
    GO,
    PUSH,
    Model,
    Played,
    Raw,
    each,
    each_client,
    play,
    says,
    serving,
    text,
)
from tests.faults.wire import PEOPLE, Rejected, connected

pytestmark = pytest.mark.usefixtures("no_leaks")


# --- replies of models -------------------------------------------------------------------------


@tool
async def note(text: str = "", deep: Any = None) -> str:
    """Note something."""
    return "noted"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def refused(played: Played) -> list[str]:
    return [text for text, is_error in played.results if is_error]


REPLIES: dict[str, tuple[dict[str, int], Any, Callable[[Played], bool]]] = {
    "calls_per_reply": (
        {"calls_per_reply": 2},
        [use("note"), use("note"), use("note")],
        lambda played: len(refused(played)) == 1 and "2" in refused(played)[0],
    ),
    "blocks_per_reply": (
        {"blocks_per_reply": 3},
        ["a", "b", "c", "d"],
        lambda played: "the reply has 4 blocks, at most 3" in (played.run.error or ""),
    ),
    "bytes_per_reply, of arguments": (
        {"bytes_per_reply": 1000},
        use("note", text="x" * 1000),
        lambda played: "all of a reply may take 1000" in refused(played)[0],
    ),
    "bytes_per_reply, of text": (
        {"bytes_per_reply": 1000},
        "x" * 2000,
        lambda played: played.stop is Stop.TRUNCATED and "bytes left out" in played.run.text,
    ),
    "depth": (
        {"depth": 4},
        use("note", deep=nested(5)),
        lambda played: "nest too deeply" in refused(played)[0],
    ),
}


@each
@pytest.mark.parametrize("limit", REPLIES)
async def test_what_a_model_may_reply(carrier: str, limit: str) -> None:
    """Set lower it strikes; by default the same reply is nothing to speak of."""
    lower, reply, struck = REPLIES[limit]
    limited = await play(
        carrier, Agent("worker", tools=[note], limits=Limits(**lower)), reply, "ok"
    )
    assert struck(limited)
    usual = await play(carrier, Agent("worker", tools=[note]), reply, "ok")
    assert usual.stop is Stop.DONE
    assert refused(usual) == []


@each_client
async def test_names_of_a_megabyte_are_cut_before_anybody_sees_them(carrier: str) -> None:
    seen: list[Any] = []
    long = {"model": "m" * 1_000_000, "stopReason": "s" * 1_000_000}
    reply = Raw(says(text("ok")) | long)
    played = await play(carrier, Agent("worker"), reply, on_event=seen.append)
    assert played.run.text == "ok"
    (answered,) = [event.reply for event in seen if hasattr(event, "reply")]
    assert (len(answered.model), len(answered.stop_reason)) == (128, 128)


# --- calls and answers of clients --------------------------------------------------------------


class Form(BaseModel):
    city: str


@tool
async def where() -> str:
    """Ask where to."""
    return (await ask_user("Where to?", Form)).city[:3]


def in_rome(size: int) -> Any:
    async def user(params: Any) -> Any:
        return Raw({"action": "accept", "content": {"city": "Rome".ljust(size, "!")}})

    return user


@each_client
@pytest.mark.parametrize(
    ("size", "limits"), [(2_000, InputLimits(bytes=1_000)), (2_000_000, InputLimits())]
)
async def test_arguments_of_a_call(carrier: str, size: int, limits: InputLimits) -> None:
    model = Model("ok")
    server = serving(Agent("worker"), carrier, input_limits=limits)
    async with connected(server, model.answer, modern=carrier != PUSH) as wire:
        with pytest.raises(Rejected, match=r"the input of the call takes \d+ bytes") as rejected:
            await wire.call("worker", {"prompt": "x" * size})
        assert (rejected.value.code, rejected.value.data) == (
            -32602,
            {"reason": "input_too_large"},
        )
        assert model.requests == []
        assert not (await wire.call("worker", {"prompt": "x" * 500})).get("isError")


@each_client
async def test_arguments_that_nest(carrier: str) -> None:
    """Also those of a function of the author's, whatever it takes."""
    server = MCPServer("host", log_level="CRITICAL")
    entered: list[Any] = []

    @server.tool()
    @resumable(input_limits=InputLimits(depth=10))
    async def look(what: Any, ctx: Context) -> str:
        entered.append(what)
        return "saw"

    low_level = server._lowlevel_server
    async with connected(low_level, Model().answer, modern=carrier != PUSH) as wire:
        assert not (await wire.call("look", {"what": nested(8)})).get("isError")
        answer = None
        try:
            answer = str(await wire.call("look", {"what": nested(11)}))
        except Rejected as error:
            answer = error.message
    assert "nests deeper than 10 levels" in answer
    assert len(entered) == 1


@each_client
async def test_the_answer_of_a_user(carrier: str) -> None:
    """Over push it is an error for the tool; in rounds it is refused, and may come shorter."""
    model = Model([use("where")], "ok")
    agent = Agent("worker", tools=[where])
    server = serving(agent, carrier, input_limits=InputLimits(bytes=1_000))
    sizes = iter([2_000, 10])

    async def answers(method: str, params: Any) -> Any:
        if method != "elicitation/create":
            return await model.answer(method, params)
        return (await in_rome(next(sizes))(params)).result

    async with connected(server, answers, modern=carrier != PUSH, capabilities=PEOPLE) as wire:
        if carrier == PUSH:
            await wire.call("worker", GO)
            assert "could not be heard: the answer takes" in str(model.requests[-1])
            return
        first = await wire.round("worker", GO)
        second = await wire.go_on(first, "worker", GO)
        with pytest.raises(Rejected, match=r"the answer .* takes"):
            await wire.go_on(second, "worker", GO)
        third = await wire.go_on(second, "worker", GO)
    assert "Rom" in str(third["inputRequests"])


# --- requests of servers -----------------------------------------------------------------------


def request(messages: list[SamplingMessage], **more: Any) -> CreateMessageRequestParams:
    return CreateMessageRequestParams(
        messages=messages, max_tokens=more.pop("max_tokens", 9), **more
    )


def said(*blocks: Any) -> SamplingMessage:
    return SamplingMessage(role="user", content=list(blocks))


HI = TextContent(text="hi")
DEEP = ToolUseContent(id="c", name="n", input=nested(9))
RESULT = ToolResultContent(tool_use_id="c", content=[HI, HI])
OFFER = Offered(name="n", input_schema={"type": "object"})

REQUESTS: dict[str, tuple[int, CreateMessageRequestParams]] = {
    "messages": (2, request([said(HI)] * 3)),
    "blocks": (2, request([said(RESULT)])),
    "bytes": (100, request([said(TextContent(text="x" * 200))])),
    "depth": (8, request([said(DEEP)])),
    "tools": (1, request([said(HI)], tools=[OFFER, OFFER])),
    "max_tokens": (10, request([said(HI)], max_tokens=11)),
}


@pytest.mark.parametrize("limit", REQUESTS)
async def test_what_a_server_may_ask_of_a_client(limit: str) -> None:
    lower, asked = REQUESTS[limit]
    provider = ScriptedProvider("ok", repeat=True)
    limited: Any = RequestLimits(**{limit: lower})
    refused: Any = await sampling_callback(provider, limits=limited)(None, asked)  # type: ignore[arg-type]
    assert isinstance(refused, ErrorData)
    assert refused.code == -32602
    assert str(lower) in refused.message
    assert provider.requests == []
    usual: Any = await sampling_callback(provider)(None, asked)  # type: ignore[arg-type]
    assert not isinstance(usual, ErrorData)


async def test_every_limit_of_a_request_is_played() -> None:
    assert set(REQUESTS) == {field.name for field in fields(RequestLimits)}


# --- tools of other servers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "told"),
    [({"max_tools": 2}, "has 3 tools, at most 2"), ({"max_bytes": 100}, "at most 100 are taken")],
)
async def test_what_another_server_may_list(limits: dict[str, int], told: str) -> None:
    server = MCPServer("remote", log_level="CRITICAL")
    for name in "abc":
        server.add_tool(note.fn, name=name)
    with pytest.raises(DefinitionError, match=told):
        await tools_from(server, **limits)  # type: ignore[arg-type]
    assert len(await tools_from(server)) == 3


@each
async def test_what_a_tool_may_give(carrier: str) -> None:
    async def much() -> CallToolResult:
        return CallToolResult(content=[TextContent(text="x" * 100_000)])

    for most, allowed in ((1_000, 1_100), (None, 17_000)):
        limited = tool(**({"max_bytes": most} if most else {}))(much)
        played = await play(carrier, Agent("worker", tools=[limited]), [use("much")], "ok")
        ((text, is_error),) = played.results
        assert not is_error
        assert "bytes left out" in text
        assert len(json.dumps(text)) < allowed


@each
async def test_how_much_media_a_tool_may_give(carrier: str) -> None:
    image = ImageContent(data="A" * 40_000, mime_type="image/png")

    @tool(max_media_bytes=100_000)
    async def pictures() -> list[ImageContent]:
        return [image] * 5

    played = await play(carrier, Agent("worker", tools=[pictures]), [use("pictures")], "ok")

    (result,) = played.requests[-1].messages[-1].content_as_list
    assert result.type == "tool_result"
    assert result.content[:-1] == [image, image]
    ((text, is_error),) = played.results
    assert not is_error
    assert text.startswith("[3 more of 5 blocks, 120")
    assert "at most 100000 bytes of media" in text
