"""The table, first part: one run of one agent."""

from __future__ import annotations

from typing import Any

from mcp_types import (
    CreateMessageResult,
    CreateMessageResultWithTools,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from pydantic import BaseModel

from agentloop import Agent, Limits, Usage, tool
from agentloop.errors import DeniedError, OverloadedError
from agentloop.meta import PROVIDER_KEY
from agentloop_providers.scripted import reply, use
from tests.carriers.kit import SECRET, Kit, alone

NO_WIRE = "a lone surrogate cannot be written by the client"
NEVER_TOLD = "the client ends the call itself, and the server is never told"


class Point(BaseModel):
    x: int
    y: int


def having(*names: str, **options: Any) -> Any:
    """Makes an agent with these tools of the kit."""
    return lambda kit: Agent("worker", tools=[getattr(kit, name) for name in names], **options)


def with_tool(name: str, **options: Any) -> Any:
    """Makes an agent with one tool of the kit, called in a special way, and ``add``."""
    return lambda kit: Agent("worker", tools=[tool(**options)(getattr(kit, name)), kit.add])


def limited(*names: str, **limits: Any) -> Any:
    return having(*names, limits=Limits(**limits))


def answer(**arguments: Any) -> ToolUseContent:
    return use("final_answer", **arguments)


def reported(reason: str | None, *content: Any) -> CreateMessageResultWithTools:
    """A reply with any stop reason, or without one."""
    blocks = [TextContent(text=c) if isinstance(c, str) else c for c in content]
    return CreateMessageResultWithTools(
        role="assistant", content=blocks, model="scripted", stop_reason=reason
    )


ONE = use("add", a=1, b=2)
SIGNED = {PROVIDER_KEY: {"signature": "c2lnbmVk", "blob": [1, 2.5, None, {"ä": "\n"}]}}
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

REPLIES = [
    alone("refusal", ADDS, reported("refusal", "I will not"), gives="I will not", stop="refused"),
    alone("cut text", ADDS, reported("maxTokens", "it is"), gives="it is", stop="truncated"),
    alone(
        "cut inside a call",
        ADDS,
        reported("maxTokens", ONE, use("add", a=9, b=9)),
        "three",
        gives="three",
        effects=("add 1 2",),
        tells=("cut off inside this call",),
    ),
    alone("an empty reply is repaired", ADDS, reply(" "), "ready", gives="ready"),
    alone("empty for good", ADDS, reply(""), reply(" \n"), gives="", stop="failed"),
    alone("toolUse without a call", ADDS, reported("toolUse", "no call"), gives="no call"),
    alone(
        "a call with endTurn",
        ADDS,
        reported("endTurn", ONE),
        "three",
        gives="three",
        effects=("add 1 2",),
    ),
    alone(
        "no stop reason",
        ADDS,
        reported(None, ONE),
        reported(None, "three"),
        gives="three",
        effects=("add 1 2",),
    ),
    alone("a stop reason of its own", ADDS, reported("x-tired", "enough"), gives="enough"),
    alone(
        "_meta comes back as it was",
        ADDS,
        [
            TextContent(text="hm", _meta=SIGNED),
            ToolUseContent(name="add", id="m", input={"a": 1, "b": 2}, _meta=SIGNED),
        ],
        lambda request: str(
            [block.meta for block in request.messages[1].content_as_list] == [SIGNED, SIGNED]
        ),
        gives="True",
        effects=("add 1 2",),
    ),
    alone(
        "one block instead of a list",
        ADDS,
        CreateMessageResult(
            role="assistant", content=TextContent(text="one"), model="m", stop_reason="endTurn"
        ),
        gives="one",
    ),
    alone("two text blocks", ADDS, reply("one", "two"), gives="one\ntwo"),
    alone(
        "a model that answers its own call",
        ADDS,
        [ONE, ToolResultContent(tool_use_id="call-1-1", content=[TextContent(text="4")])],
        "three",
        gives="three",
        effects=("add 1 2",),
    ),
    alone(
        "a reply in the user's name",
        ADDS,
        CreateMessageResultWithTools(role="user", content=[TextContent(text="hi")], model="m"),
        gives="",
        stop="failed",
    ),
    alone(
        "broken text from the model",
        ADDS,
        ["a\ud800b", use("add", a=1, b=2)],
        "c\udfffd",
        gives="c\ufffdd",
        effects=("add 1 2",),
        not_on={"stdio": NO_WIRE, "http": NO_WIRE},
    ),
    alone(
        "denied", ADDS, DeniedError("no"), gives="", stop="denied", not_on={"rounds": NEVER_TOLD}
    ),
    alone(
        "the model is overloaded",
        ADDS,
        [ONE],
        OverloadedError("529"),
        gives="",
        stop="failed",
        effects=("add 1 2",),
        not_on={"rounds": NEVER_TOLD},
    ),
]

RESULTS = [
    alone("image result", having("look"), [use("look")], "a pixel", gives="a pixel"),
    alone("every kind of result", having("lookup"), [use("lookup")], "two", gives="two"),
    alone(
        "big result cut",
        having("shout"),
        [use("shout", kibibytes=40)],
        "loud",
        gives="loud",
        tells=("head xxx", "bytes left out", "xxx tail"),
    ),
    alone("broken text from a tool", having("garbled"), [use("garbled")], "ok", gives="ok"),
    alone(
        "a tool that takes too long",
        with_tool("slow", timeout=0.01),
        [use("slow", label="never", seconds=30), ONE],
        "late",
        gives="late",
        effects=("add 1 2",),
        tells=("Timed out after 0.01 s",),
    ),
    alone(
        "an exclusive tool",
        with_tool("slow", exclusive=True),
        [use("slow", label="alone", seconds=0), ONE],
        "fine",
        gives="fine",
        effects=("add 1 2", "slow alone"),
    ),
    alone(
        "tools in threads",
        having("block"),
        [use("block", label="a"), use("block", label="b"), use("block", label="c")],
        "fine",
        gives="fine",
        effects=("block a", "block b", "block c"),
    ),
]
