"""What it costs to be watched: CPU per step, with events going nowhere, and to each kind of sink.

One trivial tool call a step, and five at a time. The first row is the loop as everybody runs it;
every other row has one sink more. Two rows are floors: what telling and keeping the events costs of
a run that nobody watches, and what the OpenTelemetry SDK costs for the same spans and measurements
with no loop around it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import structlog
from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools, ToolUseContent
from measuring import Samples, Work, main, side_by_side, table
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from agentloop import Agent, Limits
from agentloop.events import Event, Sink
from agentloop.journal import Journal
from agentloop.logs import StructLog
from agentloop.meta import with_usage
from agentloop.telemetry import OpenTelemetry
from agentloop.transcript_file import TranscriptFile
from agentloop.usage import Usage

STEPS = 50
USAGE = with_usage(None, Usage(asks=1, input_tokens=900, output_tokens=40))


async def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


class Model:
    """Calls ``add`` ``at_once`` times a step, each time with other numbers, then says so."""

    name = "fake:model-1"

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._left = STEPS - 1

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        content: Any = [
            ToolUseContent(name="add", id=f"c{self._left}-{n}", input={"a": self._left, "b": n})
            for n in range(self._at_once if self._left else 0)
        ]
        self._left -= 1
        return CreateMessageResultWithTools(
            role="assistant",
            content=content or [{"type": "text", "text": "Done."}],
            model="model-1",
            stop_reason="toolUse" if content else "endTurn",
            _meta=USAGE,
        )


AGENT = Agent("adder", tools=[add], limits=Limits(steps=None, tool_calls=None))


def run(at_once: int, sink: Sink | None = None, after: Callable[[], Any] | None = None) -> Work:
    async def work() -> None:
        result = await AGENT.run("Add.", provider=Model(at_once), on_event=sink)
        assert (result.text, result.steps) == ("Done.", STEPS)
        if after:
            after()

    return work


class Sdk:
    """The SDK as an application sets it up, with exporters that keep everything in memory."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meters = MeterProvider(metric_readers=[InMemoryMetricReader()])


def retold(events: list[Event]) -> Work:
    """Makes and keeps the events of one run over again, without the run."""
    fields = [(type(event), list(event)) for event in events]

    async def work() -> None:
        journal = Journal()
        for kind, values in fields:
            journal(kind(*values))

    return work


def bare_sdk(at_once: int) -> Work:
    """The spans and measurements of one run, with hardly anything in them, by hand."""
    sdk = Sdk()
    tracer = sdk.tracers.get_tracer("bare")
    meter = sdk.meters.get_meter("bare")
    asks, tools = meter.create_histogram("asks"), meter.create_histogram("tools")
    ask, tool = {"gen_ai.operation.name": "chat"}, {"gen_ai.tool.name": "add"}

    async def work() -> None:
        root = tracer.start_span("invoke_agent adder")
        above = trace.set_span_in_context(root)
        for step in range(STEPS):
            calls = at_once if step < STEPS - 1 else 0
            for name, kind, seconds, attributes in (
                ("chat model-1", SpanKind.CLIENT, asks, ask),
                *[("execute_tool add", SpanKind.INTERNAL, tools, tool)] * calls,
            ):
                span = tracer.start_span(name, above, kind, attributes)
                token = context.attach(trace.set_span_in_context(span))
                context.detach(token)
                span.end()
                seconds.record(0.001, attributes)
        root.end()
        sdk.spans.clear()

    return work


async def measure(at_once: int) -> dict[str, Samples]:
    told: list[Event] = []
    await run(at_once, told.append)()
    sdk = Sdk()
    full = OpenTelemetry(tracer_provider=sdk.tracers, meter_provider=sdk.meters)
    silent = structlog.wrap_logger(None, processors=[_drop])
    with (
        tempfile.TemporaryDirectory() as folder,
        TranscriptFile(Path(folder) / "run.jsonl") as file,
    ):
        return await side_by_side(
            {
                "nobody watches": run(at_once),
                "of that: the events": retold(told),
                "logs, to nowhere": run(at_once, StructLog(silent)),
                "transcript file": run(at_once, file),
                "OpenTelemetry, without an SDK": run(at_once, OpenTelemetry()),
                "OpenTelemetry, in memory": run(at_once, full, sdk.spans.clear),
                "the SDK by itself": bare_sdk(at_once),
            }
        )


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


def report() -> str:
    took = {at_once: anyio.run(measure, at_once) for at_once in (1, 5)}
    rows: list[list[str]] = []
    for name in took[1]:
        row = [name]
        for samples in took.values():
            base = samples["nobody watches"]
            ratio = samples[name].ratio_to(base)
            if name in ("of that: the events", "the SDK by itself"):
                more = f"{ratio:.1%}"
            else:
                more = f"{ratio - 1:+.1%}"
            row += [f"{samples[name].median / STEPS * 1e6:.1f}", more]
        rows.append(row)
    header = ["sink", "1 call: µs", "of the loop", "5 calls: µs", "of the loop"]
    return f"## Events: CPU per step of a run of {STEPS}\n\n{table(header, rows)}"


if __name__ == "__main__":
    main(report)
