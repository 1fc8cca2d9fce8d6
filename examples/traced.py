"""A run in a trace viewer: spans of the agent, of its tools and of MCP itself, in one tree.

Any viewer that takes OpenTelemetry will do. One that needs no setting up:

    uvx arize-phoenix serve
    uv run --with opentelemetry-sdk --with opentelemetry-exporter-otlp-proto-http \\
        examples/traced.py http://127.0.0.1:6006/v1/traces

Then open http://127.0.0.1:6006. With --content the words are in the spans too.
"""

from __future__ import annotations

import argparse
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from agentloop import Agent, Usage
from agentloop.mcp import resumable
from agentloop.telemetry import OpenTelemetry
from agentloop.testing import MockClient
from agentloop_providers.scripted import ScriptedProvider, reply, use

TIDES = {"Brest": 4.4, "Bristol": 9.6, "Saint-Malo": 8.0}


async def tidal_range(port: str) -> str:
    """How far the tide rises and falls at a port, in metres."""
    await anyio.sleep(0.1 + len(port) / 40)
    return f"{TIDES[port]} m"


surveyor = Agent("surveyor", "Look up what you are asked for.", tools=[tidal_range])
writer = Agent("writer", "Write one sentence.")


def model() -> ScriptedProvider:
    """What answers here in the place of a client's model."""
    ports = reply(*(use("tidal_range", port=port) for port in TIDES), usage=_usage(310, 60))
    return ScriptedProvider(
        0.4, ports, 0.3, reply("Bristol has the largest: 9.6 m.", usage=_usage(420, 18)),
        0.5, reply("Of the three, Bristol has by far the largest tides.", usage=_usage(90, 15)),
    )  # fmt: skip


def _usage(sent: int, came: int) -> Usage:
    return Usage(asks=1, input_tokens=sent, output_tokens=came)


async def main(endpoint: str, content: bool) -> str:
    provider = TracerProvider(resource=Resource.create({"service.name": "tides"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    trace.set_tracer_provider(provider)

    server: MCPServer[Any] = MCPServer("tides")

    @server.tool()
    @resumable(on_event=OpenTelemetry(content=content))
    async def report(ctx: Context[Any, Any]) -> str:
        """Which port has the largest tides."""
        found = await surveyor.run("Which port has the largest tides?")
        return (await writer.run(f"Put it in a sentence: {found.text}")).text

    with trace.get_tracer("client").start_as_current_span("a person asks"):
        async with MockClient(server, model()) as client:
            result = await client.call_tool("report")
    provider.shutdown()
    block = result.content[0]
    assert block.type == "text"
    return block.text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A run in a trace viewer.")
    parser.add_argument("endpoint", help="where the viewer takes OTLP over HTTP")
    parser.add_argument("--content", action="store_true", help="record what was said, too")
    options = parser.parse_args()
    print(anyio.run(main, options.endpoint, options.content))
