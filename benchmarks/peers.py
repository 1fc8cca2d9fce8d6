"""What a step costs elsewhere: the runs of ``steps.py`` in the frameworks that are installed.

None of them is needed by anything here. To measure one, install it into an environment of its own
and run this file there; ``agentloop`` takes part where it is installed, too::

    python -m venv /tmp/peers && /tmp/peers/bin/pip install pydantic-ai-slim openai-agents
    /tmp/peers/bin/python benchmarks/peers.py

The fake model sits at each framework's own model interface. Their limits are raised and tracing to
elsewhere is off; all else is as they come.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Awaitable, Callable
from typing import Any

from measuring import main, side_by_side, table

STEPS = (1, 10, 50, 100)
PROMPT = "Add up the numbers."

Run = Callable[[int], Awaitable[Any]]


def agentloop() -> Run:
    import steps

    async def run(number: int) -> Any:
        return (await steps.AGENT.run(PROMPT, provider=steps.Model(number))).text

    return run


def pydantic_ai() -> Run:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.usage import UsageLimits

    agent = Agent()

    @agent.tool_plain
    async def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    async def run(number: int) -> Any:
        left = number

        async def model(messages: object, info: object) -> ModelResponse:
            nonlocal left
            if left == 0:
                return ModelResponse(parts=[TextPart("Done.")])
            left -= 1
            return ModelResponse(parts=[ToolCallPart("add", {"a": left, "b": 1})])

        limits = UsageLimits(request_limit=None)
        result = await agent.run(PROMPT, model=FunctionModel(model), usage_limits=limits)
        return result.output

    return run


def agents() -> Run:
    from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )

    @function_tool
    async def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    class Fake(Model):
        def __init__(self, left: int) -> None:
            self._left = left

        async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
            self._left -= 1
            if self._left < 0:
                text = ResponseOutputText(text="Done.", type="output_text", annotations=[])
                said: Any = ResponseOutputMessage(
                    id="m", content=[text], role="assistant", status="completed", type="message"
                )
            else:
                said = ResponseFunctionToolCall(
                    arguments=json.dumps({"a": self._left, "b": 1}),
                    call_id=f"c{self._left}",
                    name="add",
                    type="function_call",
                )
            return ModelResponse(output=[said], usage=Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    agent = Agent("adder", tools=[add])

    async def run(number: int) -> Any:
        result = await Runner.run(
            agent,
            PROMPT,
            max_turns=number + 2,
            run_config=RunConfig(model=Fake(number), tracing_disabled=True),
        )
        return result.final_output

    return run


PEERS = {"agentloop": agentloop, "pydantic_ai": pydantic_ai, "agents": agents}


async def measure(number: int, runs: dict[str, Run]) -> list[str]:
    def work(run: Run) -> Callable[[], Awaitable[None]]:
        async def once() -> None:
            assert await run(number) == "Done."

        return once

    took = await side_by_side({name: work(run) for name, run in runs.items()}, samples=5)
    return [f"{took[name].median / number * 1e6:,.0f}" for name in runs]


def report() -> str:
    runs = {name: make() for name, make in PEERS.items() if importlib.util.find_spec(name)}
    rows = [[str(number), *asyncio.run(measure(number, runs))] for number in STEPS]
    return "\n\n".join(["## Peers: CPU per step, in µs", table(["steps", *runs], rows)])


if __name__ == "__main__":
    main(report)
