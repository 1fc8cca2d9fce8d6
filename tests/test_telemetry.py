"""Spans and metrics, as the OpenTelemetry SDK exports them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from agentloop import Agent, Limits, Stop, Usage, gather, tool
from agentloop.errors import DefinitionError, OverloadedError
from agentloop.events import RunEnded, RunStarted
from agentloop.machine import start, stop, traced
from agentloop.mcp import Tasks, mount
from agentloop.store import MemoryStore
from agentloop.task import CONDITIONS
from agentloop.telemetry import OpenTelemetry, backlog
from agentloop.testing import MockClient
from agentloop_providers.scripted import ScriptedProvider, reply, use

SECRET = "correct horse battery staple"


class Kept(SpanProcessor):
    """Keeps what ends while ``on``, and counts what begins."""

    def __init__(self) -> None:
        self.on = False
        self.spans: list[ReadableSpan] = []
        self.open: set[int] = set()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.on:
            self.open.add(span.context.span_id)

    def on_end(self, span: ReadableSpan) -> None:
        if self.on:
            self.open.discard(span.context.span_id)
            self.spans.append(span)

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of that name, in the order in which they began."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> dict[str, Any]:
        """Names within names, those side by side in alphabetical order."""
        ids = {span.context.span_id for span in self.spans}

        def below(parent: int | None) -> dict[str, Any]:
            found: list[tuple[str, Any]] = []
            for span in self.spans:
                above = span.parent.span_id if span.parent else None
                if (above if above in ids else None) == parent:
                    found.append((span.name, below(span.context.span_id)))
            counted: dict[str, Any] = {}
            for name, inside in sorted(found, key=repr):
                number = sum(key.partition(" #")[0] == name for key in counted) + 1
                counted[name if number == 1 else f"{name} #{number}"] = inside
            return counted

        return below(None)


_KEPT = Kept()


@pytest.fixture
def kept() -> Iterator[Kept]:
    """The spans of one test, the SDK of MCP's included: it records with the global provider."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(_KEPT)
        trace.set_tracer_provider(provider)
    _KEPT.spans, _KEPT.open, _KEPT.on = [], set(), True
    yield _KEPT
    _KEPT.on = False
    assert not _KEPT.open, "spans that were never ended"


def is_above(upper: ReadableSpan, lower: ReadableSpan) -> bool:
    return lower.parent is not None and lower.parent.span_id == upper.context.span_id


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- the tree ----------------------------------------------------------------------------------


async def test_a_run_its_asks_and_its_tools(kept: Kept) -> None:
    both = anyio.Event()
    waiting = 0

    @tool
    async def look(at: str) -> str:
        nonlocal waiting
        waiting += 1
        if waiting == 2:
            both.set()
        await both.wait()
        return f"saw {at}"

    agent = Agent("watcher", tools=[look])
    first = reply(use("look", id="a", at="here"), use("look", id="b", at="there"), model="m-1")
    script = ScriptedProvider(first, reply("done", model="m-1"))
    result = await agent.run("look around", provider=script, on_event=OpenTelemetry())

    assert kept.tree() == {
        "invoke_agent watcher": {
            "chat m-1": {},
            "chat m-1 #2": {},
            "execute_tool look": {},
            "execute_tool look #2": {},
        }
    }
    run = kept.one("invoke_agent watcher")
    assert run.kind is SpanKind.INTERNAL
    assert run.status.status_code is StatusCode.UNSET
    assert attributes(run) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "watcher",
        "gen_ai.request.max_tokens": 4096,
        "agentloop.run.id": result.run.id,
        "agentloop.run.key": "0",
        "agentloop.carrier": "provider",
        "agentloop.stop": "done",
        "agentloop.steps": 2,
        "agentloop.tool_calls": 2,
    }
    a, b = kept.named("execute_tool look")
    assert a.start_time < b.end_time, "the calls ran at the same time"
    assert b.start_time < a.end_time, "the calls ran at the same time"
    assert {span.attributes["gen_ai.tool.call.id"] for span in (a, b)} == {"a", "b"}
    assert attributes(a) | {"gen_ai.tool.call.id": "x"} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.call.id": "x",
        "gen_ai.tool.type": "function",
    }


async def test_what_an_ask_says_of_itself(kept: Kept) -> None:
    spent = Usage(
        asks=1, input_tokens=900, output_tokens=40, cache_read_tokens=700, cache_write_tokens=100
    )

    class Named(ScriptedProvider):
        name = "anthropic:claude-x"

    provider = Named(reply("hello", usage=spent, model="claude-x-20270101"))
    await Agent("a").run("hi", provider=provider, on_event=OpenTelemetry())
    run = attributes(kept.one("invoke_agent a"))
    assert (run["gen_ai.usage.input_tokens"], run["gen_ai.usage.output_tokens"]) == (900, 40)
    ask = kept.one("chat claude-x")
    assert ask.kind is SpanKind.CLIENT
    assert attributes(ask) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-x",
        "gen_ai.response.model": "claude-x-20270101",
        "gen_ai.response.finish_reasons": ("endTurn",),
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 700,
        "gen_ai.usage.cache_write.input_tokens": 100,
        "agentloop.step": 1,
    }


async def test_estimated_tokens_are_not_reported_as_used(kept: Kept) -> None:
    result = await Agent("a").run(
        "hi", provider=ScriptedProvider("hello"), on_event=OpenTelemetry()
    )
    assert result.usage.estimated
    for span in kept.spans:
        assert not [name for name in attributes(span) if "usage" in name]


async def test_runs_inside_a_tool_stand_below_its_span(kept: Kept) -> None:
    inner = Agent("inner")
    outer = Agent("outer", tools=[inner.as_tool()])
    script = ScriptedProvider(
        reply(use("inner", prompt="one"), use("inner", prompt="two")), "1", "2", "done"
    )
    await outer.run("go", provider=script, on_event=OpenTelemetry())
    call = {"invoke_agent inner": {"chat scripted": {}}}
    assert kept.tree() == {
        "invoke_agent outer": {
            "chat scripted": {},
            "chat scripted #2": {},
            "execute_tool inner": call,
            "execute_tool inner #2": call,
        }
    }


async def test_what_tools_record_themselves_stands_below_their_span(kept: Kept) -> None:
    tracer = trace.get_tracer("an application")

    @tool
    async def fetch() -> str:
        with tracer.start_as_current_span("GET /"):
            return "page"

    @tool
    def compute() -> str:
        with tracer.start_as_current_span("crunch"):
            return "42"

    script = ScriptedProvider(reply(use("fetch"), use("compute")), "done")
    with tracer.start_as_current_span("the application"):
        await Agent("a", tools=[fetch, compute]).run(
            "go", provider=script, on_event=OpenTelemetry()
        )
        with tracer.start_as_current_span("afterwards"):
            pass
    assert kept.tree() == {
        "the application": {
            "afterwards": {},
            "invoke_agent a": {
                "chat scripted": {},
                "chat scripted #2": {},
                "execute_tool compute": {"crunch": {}},
                "execute_tool fetch": {"GET /": {}},
            },
        }
    }


async def test_runs_side_by_side_have_their_own_spans(kept: Kept) -> None:
    agents = [Agent(name) for name in ("first", "second")]
    sink = OpenTelemetry()
    await gather(
        *(a.run("go", provider=ScriptedProvider(0.01, a.name), on_event=sink) for a in agents)
    )
    assert kept.tree() == {
        "invoke_agent first": {"chat scripted": {}},
        "invoke_agent second": {"chat scripted": {}},
    }


# --- content -----------------------------------------------------------------------------------


@tool
async def repeat(words: str) -> str:
    """Say it again."""
    return words


def secretive() -> tuple[Agent[str], ScriptedProvider]:
    agent = Agent("parrot", f"Keep {SECRET} to yourself.", tools=[repeat])
    provider = ScriptedProvider(
        reply(f"I call it {SECRET}", use("repeat", id="c1", words=SECRET)),
        OverloadedError(f"the server says: {SECRET}"),
    )
    return agent, provider


def everything(spans: list[ReadableSpan]) -> str:
    return " ".join(span.to_json() for span in spans)


async def test_nothing_that_was_said_is_in_a_span(kept: Kept) -> None:
    agent, provider = secretive()
    result = await agent.run(SECRET, provider=provider, on_event=OpenTelemetry())
    assert result.stop is Stop.FAILED
    assert SECRET not in everything(kept.spans)


async def test_content_when_asked_for_is_in_the_form_of_the_conventions(kept: Kept) -> None:
    agent, provider = secretive()
    await agent.run(SECRET, provider=provider, on_event=OpenTelemetry(content=True))
    call = attributes(kept.one("execute_tool repeat"))
    assert json.loads(call["gen_ai.tool.call.arguments"]) == {"words": SECRET}
    assert json.loads(call["gen_ai.tool.call.result"]) == SECRET
    run = kept.one("invoke_agent parrot")
    assert json.loads(attributes(run)["gen_ai.system_instructions"]) == [
        {"type": "text", "content": f"Keep {SECRET} to yourself."}
    ]
    assert SECRET in (run.status.description or "")
    ask = attributes(kept.named("chat scripted")[0])
    assert json.loads(ask["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": SECRET}]}
    ]
    assert json.loads(ask["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": f"I call it {SECRET}"},
                {"type": "tool_call", "id": "c1", "name": "repeat", "arguments": {"words": SECRET}},
            ],
            "finish_reason": "toolUse",
        }
    ]


# --- what goes wrong ---------------------------------------------------------------------------


async def test_an_ask_that_fails_ends_its_span_and_its_run_as_errors(kept: Kept) -> None:
    provider = ScriptedProvider(OverloadedError("529"))
    await Agent("a").run("hi", provider=provider, on_event=OpenTelemetry())
    for span in (kept.one("chat"), kept.one("invoke_agent a")):
        assert attributes(span)["error.type"] == "overloaded"
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None


async def test_a_tool_that_fails_does_not_make_its_run_an_error(kept: Kept) -> None:
    @tool
    async def fail() -> str:
        raise ValueError(SECRET)

    script = ScriptedProvider(reply(use("fail"), use("made_up", id="x")), "done")
    await Agent("a", tools=[fail]).run("go", provider=script, on_event=OpenTelemetry())
    for name in ("execute_tool fail", "execute_tool"):
        assert attributes(kept.one(name))["error.type"] == "tool_error"
        assert kept.one(name).status.status_code is StatusCode.ERROR
    assert attributes(kept.one("execute_tool"))["gen_ai.tool.name"] == "made_up"
    assert kept.one("invoke_agent a").status.status_code is StatusCode.UNSET


async def test_a_limit_is_a_stop_and_no_error(kept: Kept) -> None:
    @tool
    async def go_on() -> str:
        return "more"

    provider = ScriptedProvider(use("go_on"), repeat=True)
    agent = Agent("a", tools=[go_on], limits=Limits(steps=2))
    await agent.run("go", provider=provider, on_event=OpenTelemetry())
    run = kept.one("invoke_agent a")
    assert attributes(run)["agentloop.stop"] == "steps"
    assert run.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("where", ["ask", "tool"])
async def test_a_cancelled_run_leaves_no_span_open(kept: Kept, where: str) -> None:
    @tool
    async def sleep() -> str:
        await anyio.sleep_forever()
        return "never"

    script = ScriptedProvider(*([1000.0, "late"] if where == "ask" else [use("sleep")]))
    with anyio.move_on_after(0.05):
        await Agent("a", tools=[sleep]).run("go", provider=script, on_event=OpenTelemetry())
    names = {"invoke_agent a", "chat" if where == "ask" else "execute_tool sleep"}
    for name in names:
        assert attributes(kept.one(name))["error.type"] == "cancelled"
    assert not trace.get_current_span().get_span_context().is_valid


# --- over carriers -----------------------------------------------------------------------------


async def test_pushed_asks_stand_in_the_trace_of_the_request(kept: Kept) -> None:
    server = MCPServer("s", log_level="ERROR")
    mount(server, Agent("clerk", tools=[repeat]), on_event=OpenTelemetry())
    script = ScriptedProvider(use("repeat", words="a"), "done")
    async with MockClient(server, script, carrier="push") as client:
        await client.call_tool("clerk", {"prompt": "go"})
    run = kept.one("invoke_agent clerk")
    assert is_above(kept.one("tools/call clerk"), run)
    assert attributes(run)["agentloop.carrier"] == "push"
    asks = kept.named("chat scripted")
    assert [attributes(ask)["gen_ai.provider.name"] for ask in asks] == ["mcp.client"] * 2
    for ask, sent in zip(asks, kept.named("MCP send sampling/createMessage"), strict=True):
        assert is_above(run, ask)
        assert is_above(ask, sent)


async def test_a_run_over_rounds_is_one_trace(kept: Kept) -> None:
    """Though each of its requests begins a trace of its own."""
    server = MCPServer("s", log_level="ERROR")
    mount(server, Agent("clerk", tools=[repeat]), on_event=OpenTelemetry())
    script = ScriptedProvider(0.05, use("repeat", words="a"), 0.05, "done")
    async with MockClient(server, script) as client:
        await client.call_tool("clerk", {"prompt": "go"})
    parts = kept.named("invoke_agent clerk")
    asks = kept.named("chat scripted")
    assert [attributes(part).get("agentloop.resumed", False) for part in parts] == [0, 1, 1]
    assert [attributes(part).get("agentloop.suspended", False) for part in parts] == [1, 1, 0]
    traces = {span.context.trace_id for span in [*parts, *asks, kept.one("execute_tool repeat")]}
    assert len(traces) == 1
    for span in [*parts[1:], *asks]:
        assert is_above(parts[0], span)
    for ask in asks:
        took = (ask.end_time - ask.start_time) / 1e9
        assert 0.04 < took < 5, "from when it left until it was answered"
    assert asks[0].start_time >= parts[0].start_time


async def test_rounds_in_three_processes_are_one_trace() -> None:
    spans: list[dict[str, Any]] = []
    carried: dict[str, Any] = {"state": None, "answers": None, "number": 0}
    for _ in range(3):
        given = json.dumps([carried["state"], carried["answers"], carried["number"]]).encode()
        round_ = Path(__file__).with_name("one_round.py")
        done = await anyio.run_process([sys.executable, str(round_)], input=given)
        told = json.loads(done.stdout)
        spans += told["spans"]
        carried = told["after"]
    assert carried == {"text": "done"}

    def named(name: str) -> list[dict[str, Any]]:
        return sorted((s for s in spans if s["name"] == name), key=lambda s: s["began"])

    first, *later = parts = named("invoke_agent clerk")
    asks, tools = named("chat scripted"), named("execute_tool look")
    requests = named("tools/call clerk")
    assert len({part["process"] for part in parts}) == 3
    assert [len(parts), len(asks), len(tools)] == [3, 2, 2]
    assert len({span["trace"] for span in (*parts, *asks, *tools)}) == 1
    assert first["above"] == requests[0]["id"]
    assert all(span["above"] == first["id"] for span in (*later, *asks))
    assert [part["links"] for part in later] == [[request["id"]] for request in requests[1:]]
    assert [tool["above"] for tool in tools] == [later[0]["id"]] * 2
    for ask, before, after in zip(asks, parts, later, strict=False):
        assert ask["process"] == after["process"], "recorded where the answer came"
        assert before["began"] <= ask["began"] <= before["ended"], "from when it left"
        assert ask["ended"] >= after["began"]
    assert parts[-1]["attributes"]["agentloop.stop"] == "done"


async def test_an_ask_that_fails_in_another_round_is_recorded_there(kept: Kept) -> None:
    """The client answers with something else than a reply, so the ask fails where it arrives."""
    server = MCPServer("s", log_level="ERROR")
    mount(server, Agent("clerk"), on_event=OpenTelemetry())
    async with MockClient(server, ScriptedProvider("", "")) as client:
        await client.call_tool("clerk", {"prompt": "go"})
    run = kept.named("invoke_agent clerk")[-1]
    assert attributes(run)["error.type"] == "malformed_reply"


async def test_a_trace_in_the_state_that_makes_no_sense_is_no_trace(kept: Kept) -> None:
    sink = OpenTelemetry()
    provider = ScriptedProvider("hello")
    agent = Agent("a")

    for trace_ in ("00-nonsense", "", 17):
        run = traced(start(agent.definition, "hi", id="r", began=time.time()), trace_)
        sink(RunStarted(run, "0", resumed=True))
        sink(RunEnded(stop(run, Stop.CANCELLED), "0"))
    assert len(kept.named("invoke_agent a")) == 3
    assert provider.remaining == 1


def test_the_example_sends_its_trace_to_whatever_takes_otlp() -> None:
    """A viewer is told everything over the wire: here, a server that only reads what it is sent."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    names: Counter[str] = Counter()
    traces: set[bytes] = set()

    class Viewer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            sent.ParseFromString(gzip.decompress(body) if packed else body)
            for resource in sent.resource_spans:
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    names[span.name] += 1
                    traces.add(span.trace_id)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quietly."""

    example = Path(__file__).parents[1] / "examples" / "traced.py"
    with ThreadingHTTPServer(("127.0.0.1", 0), Viewer) as viewer:
        threading.Thread(target=viewer.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{viewer.server_port}/v1/traces"
        done = subprocess.run(
            [sys.executable, str(example), endpoint], capture_output=True, text=True, timeout=60
        )
        viewer.shutdown()
    assert done.stdout.startswith("Of the three, Bristol"), done.stderr
    assert len(traces) == 1
    assert names["execute_tool tidal_range"] == 3
    assert names["chat scripted"] == 3
    assert names["invoke_agent surveyor"] == 3
    assert names["tools/call report"] == 4


# --- metrics -----------------------------------------------------------------------------------


class Meters:
    """A meter provider, and what it measured."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self._reader])

    def points(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        assert data
        return {
            metric.name: sorted(metric.data.data_points, key=lambda p: sorted(p.attributes.items()))
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


async def measured(conventions: Any = "0.1.0") -> dict[str, list[Any]]:
    meters = Meters()

    class Named(ScriptedProvider):
        name = "anthropic:claude-x"

    spent = Usage(asks=1, input_tokens=100, output_tokens=10, cache_read_tokens=60)
    provider = Named(
        reply(use("repeat", words="a"), use("made up"), usage=spent, model="x-1"),
        reply("done", usage=spent, model="x-1"),
        OverloadedError("529"),
    )
    sink = OpenTelemetry(meter_provider=meters.provider, conventions=conventions)
    agent = Agent("parrot", tools=[repeat])
    for _ in range(2):
        await agent.run("go", provider=provider, on_event=sink)
    return meters.points()


async def test_metrics_of_asks_tools_and_runs() -> None:
    points = await measured()
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-x",
    }
    answered = {**chat, "gen_ai.response.model": "x-1"}
    counted = {**answered, "gen_ai.token.modality": "unknown"}
    prefix = "gen_ai.client.inference.usage"
    for name, tokens in (
        ("input_tokens", 200),
        ("output_tokens", 20),
        ("cache_read.input_tokens", 120),
    ):
        (point,) = points[f"{prefix}.{name}"]
        assert (dict(point.attributes), point.value) == (counted, tokens)
    assert f"{prefix}.cache_write.input_tokens" not in points

    failed, well = points["gen_ai.client.inference.duration"]
    assert (dict(failed.attributes), failed.count) == ({**chat, "error.type": "overloaded"}, 1)
    assert (dict(well.attributes), well.count) == (answered, 2)
    assert well.explicit_bounds[:3] == (0.01, 0.02, 0.04)

    unknown, known = points["gen_ai.execute_tool.duration"]
    agent = {"gen_ai.agent.name": "parrot"}
    error = {"error.type": "tool_error"}
    assert dict(unknown.attributes) == {**agent, **error, "gen_ai.tool.name": "_OTHER"}
    assert dict(known.attributes) == {**agent, "gen_ai.tool.name": "repeat"}

    (steps,) = points["gen_ai.invoke_agent.inference_calls"]
    assert (dict(steps.attributes), steps.count, steps.sum) == (agent, 2, 2)
    (calls,) = points["gen_ai.invoke_agent.tool_calls"]
    assert (calls.count, calls.sum) == (2, 2), "a call of a tool that does not exist is a call"
    stops = {p.attributes["agentloop.stop"]: p.value for p in points["agentloop.stops"]}
    assert stops == {"done": 1, "failed": 1}
    assert sum(p.count for p in points["gen_ai.invoke_agent.duration"]) == 2


async def test_metrics_by_their_older_names() -> None:
    points = await measured("1.41")
    tokens = {p.attributes["gen_ai.token.type"]: p.sum for p in points["gen_ai.client.token.usage"]}
    assert tokens == {"input": 200, "output": 20}
    assert sum(p.count for p in points["gen_ai.client.operation.duration"]) == 3
    assert not [name for name in points if "client.inference" in name]


async def test_what_a_client_calls_its_model_makes_no_new_time_series() -> None:
    meters = Meters()
    server = MCPServer("s", log_level="ERROR")
    mount(server, Agent("clerk"), on_event=OpenTelemetry(meter_provider=meters.provider))
    for model in ("one", "two"):
        async with MockClient(server, ScriptedProvider(reply("hi", model=model))) as client:
            await client.call_tool("clerk", {"prompt": "go"})
    (point,) = meters.points()["gen_ai.client.inference.duration"]
    assert point.count == 2
    assert dict(point.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mcp.client",
    }


def test_conventions_that_there_are_not_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"0\.1\.0"):
        OpenTelemetry(conventions="2.0")  # type: ignore[arg-type]


async def test_it_does_nothing_where_nothing_records() -> None:
    result = await Agent("a").run(
        "hi",
        provider=ScriptedProvider("hello"),
        on_event=OpenTelemetry(tracer_provider=trace.NoOpTracerProvider()),
    )
    assert result.text == "hello"


# --- tasks, as a gauge ---------------------------------------------------------------------------


def gauge(reader: InMemoryMetricReader, name: str) -> dict[str, float]:
    """What a gauge says now, by the state."""
    data = reader.get_metrics_data()
    found: dict[str, float] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == name:
                    for point in metric.data.data_points:
                        found[point.attributes["agentloop.state"]] = point.value
    return found


async def comes(reader: InMemoryMetricReader, name: str, wanted: dict[str, int]) -> None:
    for _ in range(500):
        if gauge(reader, name) == wanted:
            return
        await anyio.sleep(0.01)
    assert gauge(reader, name) == wanted


async def test_tasks_are_counted_by_their_state() -> None:
    store, release = MemoryStore(), anyio.Event()

    @tool
    async def wait() -> str:
        await release.wait()
        return "over"

    tasks = Tasks(store, poll=0.01)
    server = MCPServer("counted", extensions=[tasks], lifespan=tasks.lifespan())
    agent = Agent("patient", tools=[wait], provider=ScriptedProvider(use("wait"), "Done."))
    mount(server, agent, task="always")
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])

    async with (
        backlog(store.tasks.count, every=0.01, meter_provider=meters),
        MockClient(server, carrier="task") as client,
    ):
        none = dict.fromkeys(CONDITIONS, 0)
        await comes(reader, "agentloop.tasks", none)
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "patient", {"prompt": "Wait."})
            await comes(reader, "agentloop.tasks", none | {"running": 1})
            release.set()
        await comes(reader, "agentloop.tasks", none | {"completed": 1})
    assert gauge(reader, "agentloop.tasks") == {}


async def test_a_store_that_is_away_is_no_reason_to_end_and_nothing_is_made_up() -> None:
    away = False

    async def count() -> dict[str, int]:
        if away:
            raise OSError("no such host")
        return {"failed": 2}

    reader = InMemoryMetricReader()
    async with backlog(count, name="runs", every=0.01, meter_provider=MeterProvider([reader])):
        for now in (False, True, False):
            away = now
            await comes(reader, "runs", {} if now else {"failed": 2})


async def test_a_backlog_is_not_looked_at_all_the_time() -> None:
    with pytest.raises(DefinitionError, match="every=0 is not a number of seconds above 0"):
        async with backlog(MemoryStore().tasks.count, every=0):
            pass
