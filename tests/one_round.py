"""One round of a call, as one of several replicas serves it: a process of its own.

Reads the round's state and answers from stdin; writes what the next round needs, and the spans that
were recorded here, to stdout. The request of each round begins a trace of its own.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import anyio
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import CreateMessageResultWithTools, InputRequiredResult, SamplingCapability
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentloop import Agent
from agentloop.mcp import mount
from agentloop.telemetry import OpenTelemetry
from agentloop_providers.scripted import reply, use

SCRIPT = [reply(use("look", id="a"), use("look", id="b")), reply("done")]


async def look() -> str:
    """Look around."""
    return "nothing"


async def answer(*_: Any) -> None:
    """Never called: answers travel through the processes."""


async def one_round(
    state: str | None, answers: dict[str, Any] | None, number: int
) -> dict[str, Any]:
    security = RequestStateSecurity(keys=[b"k" * 32])
    server = MCPServer("replica", log_level="ERROR", request_state_security=security)
    mount(server, Agent("clerk", tools=[look]), on_event=OpenTelemetry())
    sampling = SamplingCapability.model_validate({"tools": {}})
    async with Client(
        server, mode="auto", sampling_callback=answer, sampling_capabilities=sampling
    ) as client:
        result = await client.session.call_tool(
            "clerk",
            {"prompt": "look around"},
            input_responses={
                key: CreateMessageResultWithTools.model_validate(said)
                for key, said in (answers or {}).items()
            }
            or None,
            request_state=state,
            allow_input_required=True,
        )
    if not isinstance(result, InputRequiredResult):
        return {"text": result.content[0].text}
    dumped = SCRIPT[number].model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "state": result.request_state,
        "answers": dict.fromkeys(result.input_requests or {}, dumped),
        "number": number + 1,
    }


def told(span: ReadableSpan) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "above": span.parent.span_id if span.parent else None,
        "links": [link.context.span_id for link in span.links],
        "began": span.start_time,
        "ended": span.end_time,
        "process": os.getpid(),
        "attributes": dict(span.attributes or {}),
    }


def main() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    after = anyio.run(one_round, *json.loads(sys.stdin.read()))
    sys.stdout.write(
        json.dumps({"after": after, "spans": [*map(told, spans.get_finished_spans())]})
    )


if __name__ == "__main__":
    main()
