"""A run driven to its end: whatever a model or a provider does, the end is a result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from mcp.server.validation import validate_tool_use_result_messages
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    SamplingMessage,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from pydantic import BaseModel
from structlog.testing import capture_logs

from agentloop import Agent, Limits, RunResult, Stop, Usage, tool
from agentloop.errors import (
    AuthenticationError,
    ContextOverflowError,
    DeniedError,
    OverloadedError,
    RunStopped,
)
from agentloop.events import AskEnded, AskStarted, Event, RunEnded, RunStarted, ToolEnded
from agentloop.output import ANSWER_TOOL
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


class Sum(BaseModel):
    total: int


def assert_balanced(messages: Sequence[SamplingMessage]) -> None:
    """Each tool use is answered once, in order, in a user message that holds nothing else."""
    wanted: list[str] = []
    for number, message in enumerate(messages):
        validate_tool_use_result_messages(list(messages[: number + 1]))
        blocks = message.content_as_list
        assert [b.tool_use_id for b in blocks if b.type == "tool_result"] == wanted
        assert not wanted or len(blocks) == len(wanted)
        wanted = [b.id for b in blocks if b.type == "tool_use"]
        assert len(set(wanted)) == len(wanted)
    assert wanted == []


async def run(*script: Any, **options: Any) -> tuple[RunResult[Any], ScriptedProvider]:
    """A run through the whole script, whose history was balanced at every ask."""
    limits = options.pop("limits", None)
    output = options.pop("output", str)
    agent: Agent[Any] = Agent("agent", tools=[add, shout], output=output, limits=limits)
    provider = ScriptedProvider(*script)
    result = await agent.run("go", provider=provider, **options)
    provider.finish()
    for request in provider.requests:
        assert_balanced(request.messages)
    assert_balanced(result.messages)
    return result, provider


def results_in(message: SamplingMessage) -> list[ToolResultContent]:
    return [block for block in message.content_as_list if block.type == "tool_result"]


def text_of(result: ToolResultContent) -> str:
    return "|".join(block.text for block in result.content if block.type == "text")


# --- the ordinary way --------------------------------------------------------------------------


async def test_a_run_asks_calls_and_asks_again_until_the_model_answers() -> None:
    result, provider = await run(
        [TextContent(text="Adding."), use("add", a=1, b=2), use("shout", text="hey")],
        [use("add", a=3, b=4)],
        "3, then 7",
    )
    assert (result.stop, result.text, result.output) == (Stop.DONE, "3, then 7", "3, then 7")
    assert (result.steps, result.run.tool_calls) == (3, 3)
    assert [m.role for m in result.messages] == ["user", "assistant"] * 3
    assert [text_of(r) for r in results_in(result.messages[2])] == ["3", "HEY"]
    assert [len(request.messages) for request in provider.requests] == [1, 3, 5]
    assert result.messages[1].content_as_list[0] == TextContent(text="Adding.")


async def test_usage_adds_up_over_the_asks() -> None:
    result, _ = await run(
        reply(use("add", a=1, b=2), usage=Usage(input_tokens=10, output_tokens=2)),
        reply("3", usage=Usage(asks=7, input_tokens=20, output_tokens=1)),
    )
    assert result.usage == Usage(asks=2, input_tokens=30, output_tokens=3)


async def test_a_conversation_goes_on_with_the_messages_of_the_run_before() -> None:
    first, _ = await run([use("add", a=1, b=2)], "3")
    second, provider = await run("still 3", history=first.messages)
    assert len(provider.requests[0].messages) == len(first.messages) + 1
    assert second.text == "still 3"
    assert second.steps == 1


async def test_an_agent_can_run_many_times_at_once() -> None:
    agent = Agent("agent", tools=[add])
    answers: list[str] = []

    async def go(n: int) -> None:
        provider = ScriptedProvider([use("add", a=n, b=1)], 0.01, f"{n}")
        result = await agent.run("go", provider=provider)
        answers.append(f"{result.text}:{text_of(results_in(result.messages[2])[0])}")

    async with anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(go, n)
    assert sorted(answers) == sorted(f"{n}:{n + 1}" for n in range(50))


# --- models that do not keep to the protocol ----------------------------------------------------


async def test_an_unknown_tool_beside_a_good_one() -> None:
    result, _ = await run([use("addd", a=1, b=2), use("add", a=1, b=2)], "3")
    bad, good = results_in(result.messages[2])
    assert bad.is_error
    assert "add" in text_of(bad)
    assert text_of(good) == "3"


async def test_two_calls_with_one_id_are_both_run_and_each_is_answered() -> None:
    result, _ = await run([use("add", id="c", a=1, b=2), use("add", id="c", a=3, b=4)], "ok")
    assert [text_of(r) for r in results_in(result.messages[2])] == ["3", "7"]


async def test_the_same_id_in_a_later_step_is_another_call() -> None:
    result, _ = await run([use("add", id="c", a=1, b=2)], [use("add", id="c", a=3, b=4)], "ok")
    assert [text_of(results_in(m)[0]) for m in (result.messages[2], result.messages[4])] == [
        "3",
        "7",
    ]


async def test_tools_are_called_though_the_stop_reason_says_otherwise() -> None:
    result, _ = await run(
        reply(use("add", a=1, b=2), stop_reason="endTurn"),
        reply(use("add", a=2, b=2), stop_reason="x-custom"),
        reply("ok", stop_reason="toolUse"),
    )
    assert (result.run.tool_calls, result.text, result.stop) == (2, "ok", Stop.DONE)


async def test_an_empty_reply_costs_one_more_ask_and_a_second_one_the_run() -> None:
    result, provider = await run(reply(stop_reason="toolUse"), "after all")
    assert (result.text, len(provider.requests)) == ("after all", 2)
    result, provider = await run(reply(), reply())
    assert (result.stop, len(provider.requests)) == (Stop.FAILED, 2)
    assert (result.error or "").startswith("malformed_reply: ")


async def test_a_reply_in_the_users_name_is_malformed() -> None:
    wrong = CreateMessageResultWithTools(
        role="user", model="m", content=[TextContent(text="I am you")], stop_reason="endTurn"
    )
    result, _ = await run(wrong)
    assert (result.stop, result.text) == (Stop.FAILED, "")


async def test_a_refusal_is_not_asked_again() -> None:
    result, provider = await run(reply("No.", stop_reason="refusal"))
    assert (result.stop, result.text, len(provider.requests)) == (Stop.REFUSED, "No.", 1)
    with pytest.raises(RunStopped, match="'refused'"):
        result.raise_for_stop()


async def test_a_call_that_was_cut_off_is_sent_back_and_not_run() -> None:
    result, _ = await run(
        reply(use("add", a=1, b=2), use("add", a=1), stop_reason="maxTokens"), "ok"
    )
    whole, cut = results_in(result.messages[2])
    assert text_of(whole) == "3"
    assert cut.is_error
    assert "cut off" in text_of(cut)


async def test_an_answer_that_was_cut_off_says_so() -> None:
    result, _ = await run(reply("Once upon a", stop_reason="maxTokens"))
    assert (result.stop, result.output) == (Stop.TRUNCATED, "Once upon a")


async def test_typed_answers_are_mended_on_the_way() -> None:
    result, provider = await run(
        [use("add", a=1, b=2)],
        "It is 3.",
        [use(ANSWER_TOOL, total="three")],
        [use(ANSWER_TOOL, total=3)],
        output=Sum,
    )
    assert (result.stop, result.output) == (Stop.DONE, Sum(total=3))
    modes = [r.tool_choice.mode if r.tool_choice else None for r in provider.requests]
    assert modes == [None, None, "required", "required"]


async def test_a_typed_answer_that_never_fits_ends_after_two_retries_with_balanced_history() -> (
    None
):
    wrong = [use(ANSWER_TOOL, total="x")]
    result, provider = await run([*wrong], [*wrong], [*wrong], output=Sum)
    assert (result.stop, len(provider.requests)) == (Stop.FAILED, 3)
    assert (result.error or "").startswith("invalid_output: ")


# --- providers that fail -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "stop", "code"),
    [
        (DeniedError("a person said no"), Stop.DENIED, "denied"),
        (OverloadedError("try later"), Stop.FAILED, "overloaded"),
        (AuthenticationError("bad key"), Stop.FAILED, "authentication"),
        (ContextOverflowError("too long"), Stop.FAILED, "context_overflow"),
    ],
)
async def test_an_error_of_the_provider_ends_the_run_and_loses_nothing(
    error: Exception, stop: Stop, code: str
) -> None:
    result, provider = await run([use("add", a=1, b=2)], error)
    assert (result.stop, result.error) == (stop, f"{code}: {error}")
    assert len(result.messages) == 3
    assert len(provider.requests) == 2
    assert result.steps == 1
    assert result.usage.asks == 1


class Broken:
    """A provider that breaks its contract."""

    name = "broken"

    def __init__(self, what: Any) -> None:
        self.what = what

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


@pytest.mark.parametrize(
    "what",
    [
        RuntimeError("api_key=hunter2"),
        ExceptionGroup("several", [ValueError("hunter2")]),
        asyncio.CancelledError("hunter2"),
        None,
        "words",
        CreateMessageResultWithTools.model_construct(role="assistant", model="m", content=None),
    ],
    ids=["error", "group", "cancelled", "none", "text", "no content"],
)
async def test_a_provider_that_breaks_its_contract_ends_the_run_and_its_secrets_stay(
    what: Any, anyio_backend_name: str
) -> None:
    if isinstance(what, asyncio.CancelledError) and anyio_backend_name != "asyncio":
        return
    with capture_logs() as logs:
        result = await Agent("agent", tools=[add]).run("go", provider=Broken(what))
    assert result.stop is Stop.FAILED
    assert (result.error or "").startswith("provider: broken raised ")
    assert "hunter2" not in f"{result.error} {logs}"
    assert [log["event"] for log in logs] == ["provider_broke_its_contract"]


async def test_a_provider_cannot_change_what_the_run_remembers() -> None:
    class Vandal:
        name = "vandal"

        async def sample(self, request: CreateMessageRequestParams) -> Any:
            request.messages.clear()
            return reply("ok")

    result = await Agent("agent").run("go", provider=Vandal())
    assert len(result.messages) == 2


async def test_a_model_that_never_answers_is_given_up_and_cancelled() -> None:
    cancelled: list[bool] = []

    class Silent:
        name = "silent"

        async def sample(self, request: CreateMessageRequestParams) -> Any:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(True)

    began = time.monotonic()
    result = await Agent("agent", limits=Limits(ask_seconds=0.1)).run("go", provider=Silent())
    assert time.monotonic() - began < 1
    assert (result.stop, result.error) == (Stop.FAILED, "timeout: no answer within 0.1 s")
    assert result.run.seconds >= 0.1
    assert cancelled == [True]


async def test_each_ask_has_its_own_time_and_tools_do_not_count_for_it() -> None:
    @tool
    async def slow() -> str:
        """Be slow."""
        await anyio.sleep(0.25)
        return "done"

    agent = Agent("agent", tools=[slow], limits=Limits(ask_seconds=0.2))
    provider = ScriptedProvider(0.1, [use("slow")], 0.1, [use("slow")], 0.1, "ok")
    result = await agent.run("go", provider=provider)
    assert (result.stop, result.text) == (Stop.DONE, "ok")


# --- cancellation ------------------------------------------------------------------------------


async def test_a_run_cancelled_while_the_model_thinks_says_so_to_those_who_listen() -> None:
    seen: list[Event] = []
    agent = Agent("agent", tools=[add])
    with anyio.move_on_after(0.1) as scope:
        provider = ScriptedProvider([use("add", a=1, b=2)], 60, "late")
        await agent.run("go", provider=provider, on_event=seen.append)
    assert scope.cancelled_caught
    ended = seen[-1]
    assert isinstance(ended, RunEnded)
    assert ended.run.stop is Stop.CANCELLED
    assert len(ended.run.messages) == 3
    assert_balanced(ended.run.messages)


# --- what is seen ------------------------------------------------------------------------------


async def test_events_tell_the_whole_story_in_order() -> None:
    seen: list[Event] = []
    await run([use("add", a=1, b=2)], "3", on_event=seen.append)
    kinds = [type(event).__name__ for event in seen]
    assert kinds == [
        "RunStarted",
        "AskStarted",
        "AskEnded",
        "ToolStarted",
        "ToolEnded",
        "AskStarted",
        "AskEnded",
        "RunEnded",
    ]
    assert {event.key for event in seen} == {"0"}
    first, last = seen[0], seen[-1]
    assert isinstance(first, RunStarted)
    assert not first.resumed
    assert isinstance(last, RunEnded)
    assert last.run.stop is Stop.DONE
    steps = [event.run.steps for event in seen]
    assert steps == sorted(steps)
    asks = [event for event in seen if isinstance(event, AskStarted | AskEnded)]
    assert all(event.run.definition.name == "agent" for event in asks)
    (ended,) = [event for event in seen if isinstance(event, ToolEnded)]
    assert isinstance(ended.call, ToolUseContent)
    assert text_of(ended.result) == "3"


async def test_a_sink_that_fails_does_not_touch_the_run() -> None:
    def sink(event: Event) -> None:
        raise ValueError("sink")

    with capture_logs():
        result, _ = await run([use("add", a=1, b=2)], "3", on_event=sink)
    assert result.stop is Stop.DONE


# --- cost --------------------------------------------------------------------------------------


async def test_a_step_costs_the_same_however_long_the_history_is() -> None:
    def calls(request: CreateMessageRequestParams) -> Any:
        return [use("add", a=len(request.messages), b=1)]

    agent = Agent("agent", tools=[add])

    async def seconds_per_step(steps: int) -> float:
        provider = ScriptedProvider(calls, repeat=True)
        limits = Limits(steps=steps, tool_calls=None)
        began = time.process_time()
        await agent.run("go", provider=provider, limits=limits)
        return (time.process_time() - began) / steps

    short = min([await seconds_per_step(20) for _ in range(5)])
    long = min([await seconds_per_step(400) for _ in range(2)])
    assert long < short * 3
