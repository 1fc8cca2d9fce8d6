"""Suspended calls that come back to the process that suspended them, and are not read again."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import CallToolResult, InputRequiredResult

from agentloop import Agent, Limits, gather, once
from agentloop.mcp import resumable
from agentloop.mcp.recent import MOST_BYTES, Call, Recent
from agentloop.mcp.written import Writer
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.carriers.driver import answers_to, call_once


def call(name: str) -> Call:
    return Call({"name": name}, {}, Writer())


def test_a_call_is_given_away_once() -> None:
    """Two that bring the same state share nothing: the second one reads it."""
    recent = Recent()
    recent.keep("state", kept := call("a"), 10)

    assert recent.take("another") is None
    assert recent.take("state") is kept
    assert recent.take("state") is None


def test_what_is_kept_has_a_bound() -> None:
    """The oldest calls make room; one that is larger than all the room is not kept at all."""
    recent = Recent()
    for number in range(5):
        recent.keep(str(number), call(str(number)), MOST_BYTES // 3)
    recent.keep("large", call("large"), MOST_BYTES + 1)

    assert [recent.take(str(number)) is not None for number in range(5)] == [False] * 2 + [True] * 3
    assert recent.take("large") is None


def test_a_state_that_is_kept_again_counts_once() -> None:
    recent = Recent()
    recent.keep("first", call("first"), MOST_BYTES // 3)
    for _ in range(5):
        recent.keep("again", call("again"), MOST_BYTES // 3)

    assert recent.take("first") is not None


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Serving:
    """A server with a function that two agents and a value take part in."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.limits = Limits(steps=9)
        security = RequestStateSecurity(keys=[b"k" * 32])
        self.server = MCPServer("recent", log_level="CRITICAL", request_state_security=security)
        self.server.add_tool(resumable(self.play), name="play")

    async def play(self, ctx: Context) -> list[str]:
        workers = [Agent(name, tools=[add], limits=self.limits) for name in ("one", "two")]
        value = await once("value", lambda: ("a tuple", {1: "a number as key"}))
        self.seen.append(list(value))
        value.append("changed by the function")
        results = await gather(*(worker.run(f"go, {worker.name}") for worker in workers))
        return [f"{result.text} after {result.steps} steps" for result in results]

    async def enter(
        self, asked: InputRequiredResult | None = None, model: ScriptedProvider | None = None
    ) -> CallToolResult | InputRequiredResult:
        """The next round, in which ``model`` answers."""
        if asked is None or model is None:
            return await call_once(self.server, "play")
        answers = await answers_to(asked, model)
        return await call_once(self.server, "play", answers=answers, state=asked.request_state)


def adding() -> ScriptedProvider:
    return ScriptedProvider([use("add", id="c", a=1, b=2)], repeat=True)


def saying(text: str) -> ScriptedProvider:
    return ScriptedProvider(text, repeat=True)


async def suspended(serving: Serving) -> InputRequiredResult:
    """What is asked in the third round."""
    asked = await serving.enter()
    for _ in range(2):
        assert isinstance(asked, InputRequiredResult)
        asked = await serving.enter(asked, adding())
    assert isinstance(asked, InputRequiredResult)
    return asked


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
async def test_a_value_is_what_its_json_is_wherever_the_call_goes_on(elsewhere: bool) -> None:
    """What ``once`` gives does not depend on which process the call comes back to."""
    serving = Serving()
    other = Serving() if elsewhere else serving
    asked = await suspended(serving)
    await other.enter(asked, saying("done"))

    assert other.seen[-1] == ["a tuple", {"1": "a number as key"}]


async def test_a_round_that_is_sent_again_gives_the_same() -> None:
    """Also with other answers: no round sees what came of another one."""
    serving = Serving()
    asked = await suspended(serving)
    first = await serving.enter(asked, saying("first"))
    again = await serving.enter(asked, saying("again"))
    further = await serving.enter(asked, adding())

    assert told(first) == ["first after 3 steps"] * 2
    assert told(again) == ["again after 3 steps"] * 2
    assert isinstance(further, InputRequiredResult)
    assert told(await serving.enter(further, saying("late"))) == ["late after 4 steps"] * 2


async def test_limits_are_those_of_the_agent_as_it_is_now() -> None:
    """Here as in another process: the limits are no part of what is kept."""
    serving = Serving()
    asked = await suspended(serving)
    serving.limits = Limits(steps=3)
    last = await serving.enter(asked, adding())

    assert isinstance(last, CallToolResult)
    assert told(last) == [" after 3 steps"] * 2


def told(result: CallToolResult | InputRequiredResult) -> Any:
    assert isinstance(result, CallToolResult), result
    assert result.structured_content is not None, result.content
    return result.structured_content["result"]
