"""What an ask costs through MCP in memory: CPU per ask, client and server together.

``agentloop`` against hand-written loops on the SDK that do the same work and no more:

- *push*: ``session.create_message`` in a loop;
- *rounds*: the transcript kept in ``requestState``, as plain JSON or deflated and in base64.

All run on the SDK's ``MCPServer``, with the SDK's own client and the same fake model behind it.
"""

from __future__ import annotations

import base64
import warnings
import zlib
from typing import Any

import anyio
from mcp import Client
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    InputRequiredResult,
    SamplingCapability,
    SamplingMessage,
    SamplingToolsCapability,
    TextContent,
    ToolResultContent,
)
from measuring import Work, main, side_by_side, table
from pydantic import TypeAdapter
from steps import ADD, PROMPT, AddArguments, Model, add

from agentloop import Agent, Limits
from agentloop.mcp import resumable

STEPS = (10, 50, 100)

server = MCPServer("bench", log_level="CRITICAL")
agent = Agent("adder", tools=[add], limits=Limits(steps=None, tool_calls=None, rounds=None))


@server.tool()
@resumable
async def agentloop(ctx: Context[Any, Any]) -> str:
    return (await agent.run(PROMPT)).text


@server.tool()
async def by_hand_push(ctx: Context[Any, Any]) -> str:
    messages = [SamplingMessage(role="user", content=[TextContent(text=PROMPT)])]
    while True:
        reply = await ctx.session.create_message(
            messages, max_tokens=4096, tools=[ADD], related_request_id=ctx.request_id
        )
        if (said := await take(messages, reply)) is not None:
            return said


MESSAGES = TypeAdapter(list[SamplingMessage])


@server.tool()
async def by_hand_rounds(ctx: Context[Any, Any]) -> str | InputRequiredResult:
    return await one_round(ctx, lambda state: state.encode(), lambda data: data.decode())


@server.tool()
async def by_hand_rounds_deflated(ctx: Context[Any, Any]) -> str | InputRequiredResult:
    return await one_round(
        ctx,
        lambda state: zlib.decompress(base64.b64decode(state)),
        lambda data: base64.b64encode(zlib.compress(data)).decode(),
    )


async def one_round(ctx: Context[Any, Any], read: Any, write: Any) -> str | InputRequiredResult:
    if ctx.request_state is None:
        messages = [SamplingMessage(role="user", content=[TextContent(text=PROMPT)])]
    else:
        messages = MESSAGES.validate_json(read(ctx.request_state))
        assert ctx.input_responses is not None
        if (said := await take(messages, ctx.input_responses["ask"])) is not None:
            return said
    params = CreateMessageRequestParams(messages=messages, max_tokens=4096, tools=[ADD])
    return InputRequiredResult(
        input_requests={"ask": CreateMessageRequest(params=params)},
        request_state=write(MESSAGES.dump_json(messages, by_alias=True, exclude_none=True)),
    )


async def take(messages: list[SamplingMessage], reply: Any) -> str | None:
    """Put ``reply`` and the results of its tool calls into ``messages``; its text if it is last."""
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
    return None


async def measure(mode: str, names: list[str], steps: int) -> dict[str, Any]:
    model = Model(steps)

    async def answer(
        context: object, params: CreateMessageRequestParams
    ) -> CreateMessageResultWithTools:
        return await model.sample(params)

    async with Client(
        server,
        mode=mode,
        sampling_callback=answer,
        sampling_capabilities=SamplingCapability(tools=SamplingToolsCapability()),
        input_required_max_rounds=steps + 2,
    ) as client:

        def calling(name: str) -> Work:
            async def call() -> None:
                model.__init__(steps)
                result = await client.call_tool(name)
                assert result.structured_content == {"result": "Done."}, result

            return call

        return await side_by_side({name: calling(name) for name in names}, at_least=0.1, samples=9)


CARRIERS = {
    "push": ("legacy", "by_hand_push"),
    "rounds": ("auto", "by_hand_rounds"),
    "rounds, deflated": ("auto", "by_hand_rounds_deflated"),
}


def report() -> str:
    warnings.filterwarnings("ignore", message=".*SEP-2577.*")
    rows: list[list[str]] = []
    for carrier, (mode, by_hand) in CARRIERS.items():
        for steps in STEPS:
            took = anyio.run(measure, mode, ["agentloop", by_hand], steps)
            ours, theirs = took["agentloop"], took[by_hand]
            per_ask = [f"{s.median / (steps + 1) * 1e6:,.0f}" for s in (ours, theirs)]
            rows.append([carrier, str(steps), *per_ask, f"{ours.ratio_to(theirs):.2f}"])
    return "\n\n".join(
        [
            "## Through MCP in memory: CPU per ask, in µs",
            table(["by hand", "steps", "agentloop", "hand-written", "ratio"], rows),
        ]
    )


if __name__ == "__main__":
    main(report)
