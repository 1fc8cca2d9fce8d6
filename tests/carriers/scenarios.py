"""The table, first part: one run of one agent."""

from __future__ import annotations

from typing import Any

from mcp_types import ToolUseContent
from pydantic import BaseModel

from agentloop import Agent, Limits, Usage
from agentloop_providers.scripted import reply, use
from tests.carriers.kit import SECRET, Kit, alone, having, with_tool


class Point(BaseModel):
    x: int
    y: int


def limited(*names: str, **limits: Any) -> Any:
    return having(*names, limits=Limits(**limits))


def answer(**arguments: Any) -> ToolUseContent:
    return use("final_answer", **arguments)


ONE = use("add", a=1, b=2)
BARE = having()
ADDS = having("add")


def _described(kit: Kit) -> Agent[str]:
    """An agent that sets everything there is to set."""
    return Agent(
        "described",
        "Be brief.",
        tools=[kit.add],
        max_tokens=77,
        temperature=0.25,
        stop_sequences=["END", "\n\n"],
    )


ALONE = [
    alone("words at once", BARE, "hello", gives="hello"),
    alone("words of all kinds", BARE, "Größe: 3 m² 🙂", gives="Größe: 3 m² 🙂"),
    alone("settings reach the model", _described, [ONE], "3", gives="3", effects=("add 1 2",)),
    alone("one tool", ADDS, [ONE], "three", gives="three", effects=("add 1 2",)),
    alone(
        "several steps",
        ADDS,
        [ONE],
        [use("add", a=3, b=4)],
        ["And", use("add", a=5, b=6)],
        "eleven",
        gives="eleven",
        effects=("add 1 2", "add 3 4", "add 5 6"),
    ),
    alone(
        "parallel calls are answered in the order of the calls",
        having("slow", "add"),
        [use("slow", label="late", seconds=0.02), ONE, use("slow", label="soon", seconds=0)],
        "done",
        gives="done",
        effects=("add 1 2", "slow late", "slow soon"),
    ),
    alone(
        "tool error",
        having("refuse", "add"),
        [use("refuse", why="full"), ONE],
        "sorry",
        gives="sorry",
        effects=("add 1 2", "refuse full"),
        tells=("No: full.",),
    ),
    alone(
        "masked exception",
        having("crash"),
        [use("crash")],
        "sorry",
        gives="sorry",
        effects=("crash",),
        tells=("ValueError",),
    ),
    alone(
        "revealed exception",
        with_tool("crash", reveal_errors=True),
        [use("crash")],
        "sorry",
        gives="sorry",
        effects=("crash",),
        tells=(SECRET,),
    ),
    alone("unknown tool", ADDS, [use("ad", a=1)], "oh", gives="oh", tells=("no tool 'ad'", "add")),
    alone(
        "bad arguments",
        ADDS,
        [use("add", a="one", b=2), use("add", a=1), use("add", a=1, b=2, c=3)],
        "oh",
        gives="oh",
        tells=("a: Input should be a valid integer", "b: Field required", "c: Extra inputs"),
    ),
    alone(
        "duplicate tool use ids",
        ADDS,
        [use("add", id="c", a=1, b=1), use("add", id="c", a=2, b=2), use("add", id="", a=3, b=3)],
        "fine",
        gives="fine",
        effects=("add 1 1", "add 2 2", "add 3 3"),
    ),
    alone(
        "structured output",
        having("add", output=Point),
        [ONE],
        [answer(x=1, y=2)],
        gives={"x": 1, "y": 2},
        effects=("add 1 2",),
    ),
    alone(
        "structured output that is no object",
        having(output=list[int]),
        [answer(result=[3, 4])],
        gives=[3, 4],
    ),
    alone(
        "structured output in words",
        having(output=Point),
        'Here:\n```json\n{"x": 5, "y": 6}\n```',
        gives={"x": 5, "y": 6},
    ),
    alone(
        "structured retry",
        having(output=Point),
        [answer(x="far", y=2)],
        "I give up",
        [answer(x=1, y=2)],
        gives={"x": 1, "y": 2},
        tells=("x: Input should be a valid integer",),
    ),
    alone(
        "structured output that never fits",
        having(output=Point),
        [answer(x="far")],
        [answer(y=1)],
        [answer()],
        gives=None,
        stop="failed",
    ),
    alone(
        "the answer beside other calls",
        having("add", output=Point),
        [ONE, answer(x=1, y=2), answer(x=3, y=4)],
        gives={"x": 1, "y": 2},
        effects=("add 1 2",),
    ),
    alone(
        "step limit with wrap-up",
        limited("add", steps=2),
        [ONE],
        "what I have",
        gives="what I have",
        stop="steps",
        effects=("add 1 2",),
        tells=("This is the last step",),
    ),
    alone(
        "step limit that the model ignores",
        limited("add", steps=2),
        [ONE],
        ["still", ONE],
        gives="still",
        stop="steps",
        effects=("add 1 2",),
        tells=("Not run: no more tool calls",),
    ),
    alone(
        "tool call limit",
        limited("add", tool_calls=2),
        [ONE, ONE, ONE],
        "that is all",
        gives="that is all",
        stop="tool_calls",
        effects=("add 1 2", "add 1 2"),
        tells=("Not run: the limit of 2",),
    ),
    alone(
        "too many calls in one reply",
        limited("add", calls_per_reply=1),
        [ONE, ONE],
        "fine",
        gives="fine",
        effects=("add 1 2",),
        tells=("Not run: at most 1",),
    ),
    alone(
        "token limit",
        limited("add", tokens=1500),
        reply(ONE, usage=Usage(input_tokens=600, output_tokens=50, cache_read_tokens=500)),
        reply("short", usage=Usage(input_tokens=700, output_tokens=10)),
        gives="short",
        stop="tokens",
        effects=("add 1 2",),
        tells=("The limit of tokens",),
    ),
    alone(
        "errors in a row",
        limited("refuse", errors=2),
        [use("refuse", why="a")],
        [use("refuse", why="b")],
        "I stop",
        gives="I stop",
        stop="errors",
        effects=("refuse a", "refuse b"),
    ),
    alone(
        "stuck",
        having("same"),
        *[[use("same")]] * 3,
        "in circles",
        gives="in circles",
        stop="stuck",
        effects=("same x",) * 3,
        tells=("try something else",),
    ),
    alone(
        "A-B-A-B",
        having("same"),
        *[[use("same", label="a")], [use("same", label="b")]] * 2,
        "in circles",
        gives="in circles",
        stop="stuck",
        effects=("same a", "same a", "same b", "same b"),
    ),
    alone(
        "a poll tool may repeat itself",
        with_tool("same", poll=True),
        *[[use("same")]] * 4,
        "ready",
        gives="ready",
        effects=("same x",) * 4,
    ),
]
