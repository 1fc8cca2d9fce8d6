"""What a step costs: CPU per step of runs with one trivial tool call a step.

``agentloop`` against two floors that keep none of its promises (no limits, no JSON, no checks of
what a model says, no cancellation):

- *typed floor*: a bare anyio loop that builds the same ``mcp_types`` objects and validates the
  arguments with pydantic;
- *dict floor*: the same on plain dicts.

The model is the same fake on both typed sides, and what it costs counts on both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    SamplingMessage,
    TextContent,
    Tool,
    ToolResultContent,
    ToolUseContent,
)
from measuring import main, side_by_side, table
from pydantic import BaseModel

from agentloop import Agent, Limits

STEPS = (1, 10, 50, 100, 200)
PROMPT = "Add up the numbers."


async def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


class Model:
    """Calls ``add`` a number of times, each time with other numbers, then says that it is done."""

    name = "fake"

    def __init__(self, steps: int) -> None:
        self._left = steps

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        if self._left == 0:
            return CreateMessageResultWithTools(
                role="assistant",
                content=[TextContent(text="Done.")],
                model="fake",
                stop_reason="endTurn",
            )
        self._left -= 1
        use = ToolUseContent(name="add", id=f"c{self._left}", input={"a": self._left, "b": 1})
        return CreateMessageResultWithTools(
            role="assistant", content=[use], model="fake", stop_reason="toolUse"
        )


class AddArguments(BaseModel):
    a: int
    b: int


ADD = Tool(
    name="add", description="Add two numbers.", input_schema=AddArguments.model_json_schema()
)


async def typed_floor(model: Model) -> str:
    """The least that a loop on the protocol's types can do."""
    messages = [SamplingMessage(role="user", content=[TextContent(text=PROMPT)])]
    while True:
        request = CreateMessageRequestParams(messages=messages, max_tokens=4096, tools=[ADD])
        reply = await model.sample(request)
        messages.append(SamplingMessage(role="assistant", content=reply.content))
        uses = [block for block in reply.content if block.type == "tool_use"]
        if not uses:
            return reply.content[0].text
        results: list[Any] = []
        for use in uses:
            arguments = AddArguments.model_validate(use.input)
            text = await add(**arguments.__dict__)
            results.append(ToolResultContent(tool_use_id=use.id, content=[TextContent(text=text)]))
        messages.append(SamplingMessage(role="user", content=results))


async def dict_model(messages: list[Any], left: int) -> dict[str, Any]:
    if left == 0:
        return {"role": "assistant", "content": [{"type": "text", "text": "Done."}]}
    use = {"type": "tool_use", "name": "add", "id": f"c{left}", "input": {"a": left, "b": 1}}
    return {"role": "assistant", "content": [use]}


async def dict_floor(steps: int) -> str:
    """The least that any loop can do."""
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    tools: dict[str, Callable[..., Any]] = {"add": add}
    while True:
        reply = await dict_model(messages, steps)
        messages.append(reply)
        uses = [block for block in reply["content"] if block["type"] == "tool_use"]
        if not uses:
            return reply["content"][0]["text"]
        results: list[Any] = []
        for use in uses:
            text = await tools[use["name"]](**use["input"])
            results.append({"type": "tool_result", "toolUseId": use["id"], "content": text})
        messages.append({"role": "user", "content": results})
        steps -= 1


AGENT = Agent("adder", tools=[add], limits=Limits(steps=None, tool_calls=None))


async def measure(steps: int) -> dict[str, Any]:
    async def ours() -> None:
        result = await AGENT.run(PROMPT, provider=Model(steps))
        assert (result.text, result.steps) == ("Done.", steps + 1)

    async def typed() -> None:
        assert await typed_floor(Model(steps)) == "Done."

    async def dicts() -> None:
        assert await dict_floor(steps) == "Done."

    return await side_by_side({"agentloop": ours, "typed floor": typed, "dict floor": dicts})


def report() -> str:
    rows: list[list[str]] = []
    per_step: dict[int, float] = {}
    for steps in STEPS:
        took = anyio.run(measure, steps)
        per_step[steps] = took["agentloop"].median / steps * 1e6
        rows.append(
            [
                str(steps),
                *(f"{took[name].median / steps * 1e6:.1f}" for name in took),
                f"{took['agentloop'].ratio_to(took['typed floor']):.2f}",
            ]
        )
    growth = per_step[200] / per_step[10]
    return "\n\n".join(
        [
            "## Steps: CPU per step, in µs",
            table(["steps", "agentloop", "typed floor", "dict floor", "ratio to typed"], rows),
            f"A step of a run of 200 costs {growth:.2f} times one of a run of 10.",
        ]
    )


if __name__ == "__main__":
    main(report)
