"""What a type checker knows of ``gather``: pyright reads this file, and pytest runs it."""

from __future__ import annotations

from typing import TypeVar, assert_type

from agentloop import Agent, RunResult, gather
from agentloop.output import ANSWER_TOOL
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

T = TypeVar("T")


async def give(value: T) -> T:
    return value


async def test_each_of_a_few_results_keeps_its_own_type() -> None:
    two = await gather(give(1), give("b"))
    assert_type(two, tuple[int, str])
    three = await gather(give(1), give("b"), give(b"c"))
    assert_type(three, tuple[int, str, bytes])
    four = await gather(give(1), give("b"), give(b"c"), give(4.0))
    assert_type(four, tuple[int, str, bytes, float])
    five = await gather(give(1), give("b"), give(b"c"), give(4.0), give([5]))
    assert_type(five, tuple[int, str, bytes, float, list[int]])
    assert list(five) == [1, "b", b"c", 4.0, [5]]


async def test_agents_with_different_outputs_run_together() -> None:
    writer = Agent("writer", provider=ScriptedProvider("Once."))
    critic = Agent("critic", output=int, provider=ScriptedProvider(use(ANSWER_TOOL, result=7)))
    story, mark = await gather(writer.run("Write."), critic.run("Judge."))
    assert_type(story, RunResult[str])
    assert_type(mark, RunResult[int])
    assert_type(mark.output, int)


async def test_any_number_of_one_type_is_a_list() -> None:
    assert_type(await gather(*(give(n) for n in range(6))), list[int])
    six = await gather(give(1), give(2), give(3), give(4), give(5), give(6))
    assert_type(six, list[int])
    assert six == [1, 2, 3, 4, 5, 6]
