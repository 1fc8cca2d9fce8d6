"""Every limit ends its run well: the model is told, asked for its last words, and the stop says."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from mcp_types import SamplingMessage, TextContent, ToolUseContent
from pydantic import BaseModel

from agentloop import Agent, Limits, RunResult, Stop, Usage, tool
from agentloop.meta import NOTICE_KEY
from agentloop.output import ANSWER_TOOL
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use


@tool
async def count(n: int = 0) -> int:
    """Count."""
    return n


@tool
async def broken() -> None:
    """Never works."""
    raise ValueError


@tool
async def same() -> str:
    """Always the same."""
    return "nothing new"


@tool(poll=True)
async def status() -> str:
    """Look whether it is ready."""
    return "not yet"


TOOLS = [count, broken, same, status]


class Answer(BaseModel):
    n: int


async def run(
    *script: Any, output: Any = str, repeat: bool = False, tools: Any = TOOLS, **limits: Any
) -> tuple[RunResult[Any], ScriptedProvider]:
    provider = ScriptedProvider(*script, repeat=repeat)
    agent: Agent[Any] = Agent("agent", tools=tools, output=output, limits=Limits(**limits))
    return await agent.run("go", provider=provider), provider


def counting(times: int) -> list[Any]:
    return [[use("count", n=n)] for n in range(times)]


def notices(messages: Any) -> list[str]:
    return [
        part.text
        for message in messages
        for block in message.content_as_list
        if block.type == "tool_result"
        for part in block.content
        if part.type == "text" and part.meta and NOTICE_KEY in part.meta
    ]


def last_words(provider: ScriptedProvider) -> tuple[str, list[str]]:
    """The tool choice of the last ask and the tools it offers."""
    request = provider.requests[-1]
    choice = request.tool_choice
    assert choice is not None
    return choice.mode or "", [offered.name for offered in request.tools or ()]


# --- steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5])
async def test_a_model_that_calls_for_ever_is_asked_so_often_and_then_for_words(steps: int) -> None:
    result, provider = await run(*counting(steps - 1), "enough", steps=steps)
    assert len(provider.requests) == result.steps == steps
    assert (result.stop, result.text) == (Stop.STEPS, "enough")
    assert last_words(provider)[0] == "none"
    assert [r.tool_choice for r in provider.requests[:-1]] == [None] * (steps - 1)


async def test_a_model_that_calls_on_although_it_may_not_ends_balanced() -> None:
    result, provider = await run([use("count")], repeat=True, steps=3)
    assert len(provider.requests) == 3
    assert result.stop is Stop.STEPS
    assert result.run.tool_calls == 2
    assert result.run.messages.imbalance() is None


async def test_without_any_limits_given_a_run_ends_in_under_twenty_five_asks() -> None:
    def script(request: Any) -> Any:
        return [use("count", n=len(request.messages))]

    provider = ScriptedProvider(script, repeat=True)
    result = await Agent("agent", tools=TOOLS).run("go", provider=provider)
    assert result.stop is Stop.STEPS
    assert len(provider.requests) == 20


async def test_an_agent_without_tools_that_answers_in_its_only_step_is_done() -> None:
    result, provider = await run("hello", tools=(), steps=1)
    assert result.stop is Stop.DONE
    assert provider.requests[0].tool_choice is None


async def test_a_typed_answer_is_required_in_the_last_step_and_nothing_else_is_offered() -> None:
    result, provider = await run(*counting(2), [use(ANSWER_TOOL, n=7)], output=Answer, steps=3)
    assert last_words(provider) == ("required", [ANSWER_TOOL])
    assert (result.stop, result.output) == (Stop.STEPS, Answer(n=7))


async def test_an_empty_reply_to_the_last_ask_does_not_buy_another_step() -> None:
    result, provider = await run(*counting(2), "", steps=3)
    assert (result.stop, len(provider.requests)) == (Stop.STEPS, 3)


# --- what the model is told --------------------------------------------------------------------


async def test_the_model_is_warned_once_and_then_told_that_this_is_the_last_step() -> None:
    result, provider = await run(*counting(19), "enough", steps=20)
    assert notices(provider.requests[-1].messages) == [
        "[16 of 20 steps are used: come to an answer soon.]",
        "[The limit of steps is reached. This is the last step: answer in words with what is "
        "known, and say what is missing.]",
    ]
    assert result.stop is Stop.STEPS


async def test_a_notice_stands_inside_the_last_result_after_what_the_tool_gave() -> None:
    _, provider = await run([use("count", n=1), use("count", n=2)], "enough", steps=2)
    message: SamplingMessage = provider.requests[-1].messages[-1]
    first, second = message.content_as_list
    assert [block.type for block in message.content_as_list] == ["tool_result", "tool_result"]
    assert first.type == second.type == "tool_result"
    assert first.content == [TextContent(text="1")]
    assert second.content[0] == TextContent(text="2")
    assert len(second.content) == 2
    assert second.content[1].type == "text"
    assert second.content[1].meta == {NOTICE_KEY: True}


# --- tool calls --------------------------------------------------------------------------------


async def test_of_ten_calls_at_once_with_a_budget_of_five_exactly_five_run() -> None:
    ran: list[int] = []

    @tool
    async def effect(n: int) -> str:
        """Do it."""
        ran.append(n)
        return "done"

    calls: list[ToolUseContent] = [use("effect", n=n) for n in range(10)]
    result, provider = await run(calls, "so far", tools=[effect], tool_calls=5)
    assert sorted(ran) == [0, 1, 2, 3, 4]
    given = [b for b in result.messages[2].content_as_list if b.type == "tool_result"]
    assert [bool(b.is_error) for b in given] == [False] * 5 + [True] * 5
    assert given[7].content == [TextContent(text="Not run: the limit of 5 tool calls is reached.")]
    assert (result.stop, result.run.tool_calls) == (Stop.TOOL_CALLS, 5)
    assert last_words(provider)[0] == "none"


async def test_a_budget_is_spent_over_several_steps_and_never_overdrawn() -> None:
    two = [use("count", n=1), use("count", n=2)]
    result, _ = await run([*two], [*two], [*two], "end", tool_calls=5)
    assert (result.run.tool_calls, result.stop) == (5, Stop.TOOL_CALLS)


async def test_no_tool_calls_at_all_still_lets_a_model_answer() -> None:
    result, _ = await run("hello", tool_calls=0)
    assert result.stop is Stop.DONE
    result, _ = await run([use("count")], "then in words", tool_calls=0)
    assert (result.stop, result.run.tool_calls) == (Stop.TOOL_CALLS, 0)


async def test_a_call_of_an_unknown_tool_counts_like_any_other() -> None:
    result, _ = await run([use("cuont")], "words", tool_calls=1)
    assert result.stop is Stop.TOOL_CALLS


# --- tokens ------------------------------------------------------------------------------------


async def test_tokens_as_reported_end_a_run_with_room_for_last_words() -> None:
    def costs(tokens: int, *content: Any) -> Any:
        return reply(*content, usage=Usage(input_tokens=tokens))

    script = [costs(100, use("count", n=n)) for n in range(3)]
    result, provider = await run(*script, costs(100, "enough"), tokens=450)
    assert (result.stop, result.text) == (Stop.TOKENS, "enough")
    assert last_words(provider)[0] == "none"
    assert result.usage.total_tokens == 400
    assert result.usage.estimated is None


async def test_an_ask_that_overdraws_the_tokens_is_the_last_one() -> None:
    big = reply(use("count"), usage=Usage(input_tokens=5000))
    result, provider = await run(big, tokens=1000)
    assert (result.stop, len(provider.requests)) == (Stop.TOKENS, 1)
    assert result.run.messages.imbalance() is None


async def test_tokens_that_nobody_reports_are_estimated_and_said_to_be() -> None:
    result, _ = await run("x" * 4000)
    assert result.usage.estimated == "bytes/4"
    assert 900 < result.usage.output_tokens < 1100


# --- time --------------------------------------------------------------------------------------


async def test_time_that_runs_out_while_the_model_thinks_ends_the_run() -> None:
    began = time.monotonic()
    result, _ = await run([use("count")], 5, "too late", seconds=0.2)
    assert time.monotonic() - began < 2
    assert result.stop is Stop.SECONDS
    assert result.run.seconds >= 0.2
    assert len(result.messages) == 3


async def test_time_that_runs_out_while_tools_run_keeps_what_they_gave() -> None:
    @tool
    async def slow(seconds: float) -> str:
        """Take time."""
        await anyio.sleep(seconds)
        return "rested"

    calls = [use("slow", seconds=0), use("slow", seconds=30), use("slow", seconds=30)]
    began = time.monotonic()
    result, _ = await run(calls, tools=[slow], seconds=0.3)
    assert time.monotonic() - began < 2
    assert result.stop is Stop.SECONDS
    first, second, third = result.messages[-1].content_as_list
    assert first.type == second.type == third.type == "tool_result"
    assert first.content == [TextContent(text="rested")]
    assert second.is_error
    assert third.is_error


async def test_calls_that_wait_for_their_turn_are_not_begun_when_the_time_is_up() -> None:
    ran: list[int] = []

    @tool
    async def slow(n: int) -> None:
        """Take time."""
        ran.append(n)
        await anyio.sleep(30)

    @tool(exclusive=True)
    async def alone() -> None:
        """Run alone."""
        ran.append(-1)

    calls = [use("slow", n=0), use("slow", n=1), use("alone")]
    result, _ = await run(calls, tools=[slow, alone], seconds=0.2, parallel=1)
    assert (ran, result.stop) == ([0], Stop.SECONDS)
    _, second, third = result.messages[-1].content_as_list
    assert second.type == third.type == "tool_result"
    assert second.content == third.content == [TextContent(text="Not run: the time is up.")]


async def test_before_the_time_runs_out_the_model_is_asked_for_words() -> None:
    result, provider = await run(0.15, [use("count")], "in time", seconds=0.4)
    assert (result.stop, result.text) == (Stop.SECONDS, "in time")
    assert last_words(provider)[0] == "none"


async def test_one_ask_may_take_so_long_and_no_longer() -> None:
    result, _ = await run(5, "too late", ask_seconds=0.1)
    assert result.stop is Stop.FAILED
    assert result.error == "timeout: no answer within 0.1 s"


# --- errors, and going in circles ---------------------------------------------------------------


async def test_steps_in_which_everything_fails_end_a_run() -> None:
    script = [[use("broken")], [use("nope")], [use("count", n="x")], "I give up"]
    result, provider = await run(*script, errors=3)
    assert (result.stop, result.text) == (Stop.ERRORS, "I give up")
    assert last_words(provider)[0] == "none"


async def test_answers_that_do_not_fit_are_counted_by_themselves_and_not_as_errors() -> None:
    script = [[use(ANSWER_TOOL, n=wrong)] for wrong in "abc"] + [[use(ANSWER_TOOL, n=1)]]
    result, _ = await run(*script, output=Answer, errors=2, output_retries=3)
    assert (result.stop, result.output) == (Stop.DONE, Answer(n=1))


async def test_one_call_that_works_begins_the_count_of_errors_anew() -> None:
    script = [[use("broken")], [use("broken"), use("count")], [use("broken")], "done"]
    result, _ = await run(*script, errors=2)
    assert result.stop is Stop.DONE


async def test_the_same_call_with_the_same_result_three_times_is_stuck() -> None:
    result, provider = await run([use("same")], [use("same")], [use("same")], "I see")
    assert (result.stop, result.text) == (Stop.STUCK, "I see")
    assert notices(provider.requests[2].messages)[-1] == (
        "[The same calls gave the same results as before: try something else.]"
    )
    assert last_words(provider)[0] == "none"


async def test_words_after_a_call_do_not_make_it_another_call() -> None:
    result, _ = await run([use("same")], [use("same"), "Once more."], [use("same")], "I see")
    assert (result.stop, result.text) == (Stop.STUCK, "I see")


async def test_a_b_a_b_is_stuck() -> None:
    result, _ = await run(
        [use("same")], [use("count", n=1)], [use("same")], [use("count", n=1)], "I see"
    )
    assert result.stop is Stop.STUCK


@pytest.mark.parametrize(
    "script",
    [
        counting(6),
        [[use("same")], [use("same")], [use("count", n=1)], [use("same")], [use("same")]],
        [[use("count", n=1)], [use("count", n=2)], [use("count", n=1)], [use("count", n=3)]],
    ],
)
async def test_what_is_not_the_same_again_is_not_stuck(script: list[Any]) -> None:
    result, _ = await run(*script, "done")
    assert result.stop is Stop.DONE


async def test_a_tool_whose_result_changes_is_not_stuck() -> None:
    results = iter(range(10))

    @tool
    async def look() -> int:
        """Look again."""
        return next(results)

    result, _ = await run(*[[use("look")]] * 5, "done", tools=[look])
    assert result.stop is Stop.DONE


async def test_a_tool_made_for_polling_may_be_called_again_and_again() -> None:
    result, _ = await run(*[[use("status")]] * 8, "ready")
    assert result.stop is Stop.DONE


async def test_a_notice_in_a_result_does_not_make_it_another_result() -> None:
    # The warning of four steps used stands in the second of the three same results.
    result, _ = await run(*counting(2), *[[use("same")]] * 3, "I see", steps=9)
    assert result.stop is Stop.STUCK


async def test_limits_of_one_run_are_given_to_that_run_alone() -> None:
    agent = Agent("agent", tools=TOOLS, limits=Limits(steps=5))
    provider = ScriptedProvider([use("count")], "short")
    result = await agent.run("go", provider=provider, limits=Limits(steps=2))
    assert result.stop is Stop.STEPS
    assert agent.definition.limits.steps == 5


def test_every_stop_is_a_word_that_json_can_hold() -> None:
    assert {str(stop) for stop in Stop} == {
        "done",
        "steps",
        "rounds",
        "tool_calls",
        "tokens",
        "seconds",
        "errors",
        "stuck",
        "truncated",
        "refused",
        "denied",
        "cancelled",
        "failed",
    }
