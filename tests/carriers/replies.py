"""The table, second part: what models reply, and what tools give."""

from __future__ import annotations

from typing import Any

from mcp_types import (
    CreateMessageResult,
    CreateMessageResultWithTools,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.errors import DeniedError, OverloadedError
from agentloop.meta import PROVIDER_KEY
from agentloop_providers.scripted import reply, use
from tests.carriers.kit import alone, having, with_tool

NO_WIRE = "a lone surrogate cannot be written by the client"
NEVER_TOLD = "the client ends the call itself, and the server is never told"

ONE = use("add", a=1, b=2)
SIGNED = {PROVIDER_KEY: {"signature": "c2lnbmVk", "blob": [1, 2.5, None, {"ä": "\n"}]}}
ADDS = having("add")


def reported(reason: str | None, *content: Any) -> CreateMessageResultWithTools:
    """A reply with any stop reason, or without one."""
    blocks = [TextContent(text=c) if isinstance(c, str) else c for c in content]
    return CreateMessageResultWithTools(
        role="assistant", content=blocks, model="scripted", stop_reason=reason
    )


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
        "denied",
        ADDS,
        DeniedError("no"),
        gives="",
        stop="denied",
        not_on={"rounds": NEVER_TOLD, "task": NEVER_TOLD},
    ),
    alone(
        "the model is overloaded",
        ADDS,
        [ONE],
        OverloadedError("529"),
        gives="",
        stop="failed",
        effects=("add 1 2",),
        not_on={"rounds": NEVER_TOLD, "task": NEVER_TOLD},
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
