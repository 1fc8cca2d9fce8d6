"""The eight guarantees, over every carrier, on asyncio and on trio.

What models say is drawn: replies as clients may write them, whole, if odd. Each play is one call
of a real server by a real client, in memory.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    InputRequiredResult,
    TextContent,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from pydantic_core import from_json

import agentloop
from agentloop import Agent, Limits, RunResult, Stop, ToolError, gather, tool
from agentloop.events import AskStarted, Event, ToolEnded
from agentloop.mcp import Tasks, mount, resumable
from agentloop.meta import INVALID_KEY, PROVIDER_KEY
from agentloop.place import HERE, Host, Place
from agentloop.provider import Provider
from agentloop.run import Run
from agentloop.store import MemoryStore
from agentloop.telemetry import OpenTelemetry
from agentloop.testing import MockClient
from agentloop.testing.carry import Carrier, carry
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use
from tests.carriers.driver import answers_to, call_once
from tests.carriers.stage import KEY, TABLE, played_directly, stage
from tests.faults import strategies as drawn
from tests.faults.kit import CLIENTS, GO, PUSH, calls, says, serving, text
from tests.faults.wire import JSON, SAMPLING, Rejected, Wire, connected
from tests.histories import assert_balanced
from tests.leaks import Leaks
from tests.test_carriers import asks_in

CARRIERS: tuple[Carrier, ...] = ("direct", "push", "rounds", "task")
BACKENDS = ("asyncio", "trio")

on_each_carrier = pytest.mark.parametrize("carrier", CARRIERS)
on_each_backend = pytest.mark.parametrize("backend", BACKENDS)
pytestmark = pytest.mark.timeout(300)


def read(reply: JSON) -> CreateMessageResultWithTools:
    """A reply as a client writes it."""
    return CreateMessageResultWithTools.model_validate(reply)


scripts = st.lists(drawn.replies.map(read), max_size=5)
limits = st.builds(
    Limits,
    steps=st.sampled_from([1, 2, 3, 6]),
    tool_calls=st.sampled_from([0, 1, 2, None]),
    tokens=st.sampled_from([1, 100, 400, None]),
    rounds=st.sampled_from([1, 2, 3, 10]),
    errors=st.sampled_from([1, 2, None]),
    parallel=st.sampled_from([1, 2, 16]),
    calls_per_reply=st.sampled_from([1, 2, 64]),
    output_retries=st.integers(0, 2),
)


def examples(number: int) -> Any:
    """Draw so many; the same each time."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep tracebacks of failures that are wanted from being drawn, which takes long."""
    with structlog.testing.capture_logs():
        yield


# --- how a script is played --------------------------------------------------------------------


@dataclass
class Played:
    """What came of one run, and what went on in it."""

    model: ScriptedProvider
    events: list[Event] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)
    """The arguments of the calls that were made."""
    most_at_once: int = 0
    _now: int = 0
    result: RunResult[Any] = field(init=False)

    async def add(self, a: int, b: Any = None) -> int:
        """Add numbers."""
        self.ran.append(a)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await anyio.lowlevel.checkpoint()
        self._now -= 1
        if a % 5 == 4:
            raise ToolError("I cannot add this.")
        return a + 1

    def told(self) -> Any:
        """All that must be the same wherever the model is."""
        story = self.result.to_json()
        for varies in ("seconds", "run_id"):
            del story[varies]
        story["error"] = (story["error"] or "").partition(":")[0]  # the rest is the client's
        return story, asks_in(self.model), sorted(self.ran)


async def play(carrier: Carrier, script: Sequence[Any], limits: Limits | None = None) -> Played:
    """A run whose model says ``script``, and then that this is all."""
    lines = iter(script)
    played = Played(ScriptedProvider(lambda _: next(lines, "That is all."), repeat=True))
    agent = Agent("worker", tools=[played.add], limits=limits or Limits(steps=5))
    played.result = await carry(
        agent, "Go", provider=played.model, carrier=carrier, on_event=played.events.append
    )
    return played


# --- 1 -----------------------------------------------------------------------------------------


@on_each_carrier
@on_each_backend
@examples(12)
@given(scripts)
def test_guarantee_1_every_tool_use_has_exactly_one_result_at_every_ask(
    carrier: Carrier, backend: str, script: list[Any]
) -> None:
    played = anyio.run(play, carrier, script, backend=backend)

    assert played.model.requests
    for request in played.model.requests:
        assert_balanced(request.messages)
    assert_balanced(played.result.messages)


# --- 2 -----------------------------------------------------------------------------------------


@on_each_carrier
@on_each_backend
@examples(12)
@given(scripts)
def test_guarantee_2_the_same_conversation_gives_the_same_transcript_on_every_carrier(
    carrier: Carrier, backend: str, script: list[Any]
) -> None:
    here = anyio.run(play, "direct", script, backend="asyncio")
    there = anyio.run(play, carrier, script, backend=backend)

    assert there.told() == here.told()


@on_each_carrier
async def test_guarantee_2_null_in_the_meta_of_a_reply_is_the_same_as_nothing(
    carrier: Carrier,
) -> None:
    """2026-07-28 sends no key of a ``_meta`` that is null; what is null further down stays."""
    holds: JSON = {"null": None, INVALID_KEY: None, PROVIDER_KEY: {"null": None}}
    add = use("add", a=1, b=None).model_copy(update={"meta": holds})
    words = TextContent(text="Adding.", _meta={"null": None})
    script = [CreateMessageResultWithTools(role="assistant", model="m", content=[words, add])]

    here, there = await play("direct", script), await play(carrier, script)

    assert there.told() == here.told()
    assert there.ran == [1]
    [said, called] = there.result.messages[1].content_as_list
    assert (said.meta, called.meta) == (None, {PROVIDER_KEY: {"null": None}})


@pytest.mark.parametrize("carrier", [carrier for carrier in CARRIERS if carrier != "direct"])
async def test_guarantee_2_the_same_scenario_gives_the_same_transcript_on_every_carrier(
    carrier: Any,
) -> None:
    for row in TABLE.values():
        if {carrier, "memory"} & row.not_on.keys():
            continue
        model, model_there = row.model(), row.model()
        here = await played_directly(row, model)
        async with MockClient(stage(), model_there, carrier=carrier) as client:
            there = await client.call_tool("play", {"name": row.name, "call": row.name})

        assert there.structured_content == here, row.name
        assert asks_in(model_there) == asks_in(model), row.name


# --- 3 -----------------------------------------------------------------------------------------


class Keeping(Host):
    """Keeps the run after each of its changes, as JSON, and goes on from one that was kept."""

    def __init__(self, model: Provider, after: JSON | None = None) -> None:
        super().__init__(model, None)
        self.kept: list[JSON] = []
        self._after = after

    def keep(self, key: str, run: Run) -> None:
        self.kept.append(json.loads(json.dumps(run.to_json())))

    def resume(self, place: Place, run: Run) -> Run | None:
        return Run.from_json(self._after, run.definition) if self._after else None


class Memory:
    """A model that says ``script``, and to an ask that it knows what it said to it before."""

    name = "memory"

    def __init__(self, script: Sequence[Any]) -> None:
        self._lines = iter(script)
        self._said: dict[str, Any] = {}

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        ask = request.model_dump_json()
        if ask not in self._said:
            self._said[ask] = next(self._lines, reply("That is all."))
        return self._said[ask]


async def kept_and_ended(agent: Agent[Any], host: Keeping) -> tuple[list[JSON], JSON]:
    """The run after each of its changes, and its end, without what clocks say."""
    token = HERE.set(Place("", None, host))
    try:
        result = await agent.run("Go")
    finally:
        HERE.reset(token)
    story = result.to_json()
    return host.kept, {key: story[key] for key in story if key not in ("seconds", "run_id")}


@on_each_backend
@examples(15)
@given(scripts)
def test_guarantee_3_gone_on_with_from_any_point_a_run_ends_as_if_never_suspended(
    backend: str, script: list[Any]
) -> None:
    async def check() -> None:
        model = Memory(script)
        agent = Agent("worker", tools=[Played(ScriptedProvider()).add], limits=Limits(steps=5))
        points, end = await kept_and_ended(agent, Keeping(model))
        assert len(points) > 1
        for point in points:
            _, gone_on = await kept_and_ended(agent, Keeping(model, after=point))
            assert gone_on == end

    anyio.run(check, backend=backend)


@on_each_backend
@examples(12)
@given(scripts)
def test_guarantee_3_a_new_server_at_every_round_is_the_server_that_began(
    backend: str, script: list[Any]
) -> None:
    async def rounds(fresh: bool) -> tuple[list[int], Any, Any]:
        lines = iter(script)
        played = Played(ScriptedProvider(lambda _: next(lines, "That is all."), repeat=True))

        def server() -> MCPServer[Any]:
            security = RequestStateSecurity(keys=[KEY])
            made = MCPServer("s", log_level="CRITICAL", request_state_security=security)
            mount(made, Agent("worker", tools=[played.add], limits=Limits(steps=5)))
            return made

        one = server()
        result = await call_once(one, "worker", GO)
        while isinstance(result, InputRequiredResult):
            answers = await answers_to(result, played.model)
            result = await call_once(
                server() if fresh else one,
                "worker",
                GO,
                answers=answers,
                state=result.request_state,
            )
        return played.ran, asks_in(played.model), [result.is_error, result.content]

    async def check() -> None:
        assert await rounds(fresh=True) == await rounds(fresh=False)

    anyio.run(check, backend=backend)


# --- 4 -----------------------------------------------------------------------------------------

plans = st.lists(st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=4), max_size=3)
"""Agents side by side; each with steps; each with calls, which are quick, slow or in a thread."""


@on_each_carrier
@on_each_backend
@examples(12)
@given(plans)
def test_guarantee_4_a_call_that_finished_is_never_made_again(
    carrier: Carrier, backend: str, plan: list[list[list[int]]]
) -> None:
    finished: Counter[str] = Counter()

    @tool
    async def work(what: str, pause: float) -> None:
        """Do it."""
        await anyio.sleep(pause)
        finished[what] += 1

    @tool
    def block(what: str, pause: float) -> None:
        """Do it in a thread."""
        finished[what] += 1

    def model(request: CreateMessageRequestParams) -> Any:
        agent = int(request.messages[0].content_as_list[0].text)  # type: ignore[union-attr]
        step = sum(message.role == "assistant" for message in request.messages)
        if step >= len(plan[agent]):
            return "That is all."
        names, pauses = ("work", "work", "block"), (0, 0.002, 0)
        blocks: list[Any] = ["So:"]
        for call, kind in enumerate(plan[agent][step]):
            what = f"{agent} {step} {call}"
            blocks.append(use(names[kind], id=what, what=what, pause=pauses[kind]))
        return reply(*blocks)

    worker = Agent("worker", tools=[work, block])

    async def side_by_side() -> str:
        await gather(*(worker.run(str(agent)) for agent in range(len(plan))))
        return "done"

    anyio.run(called, carrier, side_by_side, model, backend=backend)

    assert finished == Counter(
        f"{agent} {step} {call}"
        for agent, steps in enumerate(plan)
        for step, kinds in enumerate(takewhile(bool, steps))  # without calls, a reply is an answer
        for call in range(len(kinds))
    )


async def called(
    carrier: Carrier, function: Callable[[], Awaitable[str]], answers: Callable[..., Any]
) -> None:
    """Call ``function``, which runs agents, on a server; or as it is."""
    model = ScriptedProvider(answers, repeat=True)
    if carrier == "direct":
        token = HERE.set(Place("", None, Host(model, None)))
        try:
            await function()
        finally:
            HERE.reset(token)
        return
    tasks = Tasks(MemoryStore())
    server = MCPServer("s", log_level="CRITICAL", extensions=[tasks], lifespan=tasks.lifespan())

    @server.tool()
    @resumable(task="always")
    async def served(ctx: Context) -> str:
        return await function()

    async with MockClient(server, model, carrier=carrier) as client:
        result = await client.call_tool("served", {})
    assert not result.is_error, result.content


# --- 5 -----------------------------------------------------------------------------------------


@on_each_carrier
@on_each_backend
@examples(15)
@given(scripts, limits)
def test_guarantee_5_no_limit_is_overrun_by_more_than_what_was_in_flight(
    carrier: Carrier, backend: str, script: list[Any], limits: Limits
) -> None:
    played = anyio.run(play, carrier, script, limits, backend=backend)

    asks = [event for event in played.events if isinstance(event, AskStarted)]
    for ask in asks:
        assert limits.tokens is None or ask.run.usage.total_tokens < limits.tokens
    assert len(played.model.requests) <= (limits.steps or 0)
    assert limits.tool_calls is None or len(played.ran) <= limits.tool_calls
    assert played.most_at_once <= limits.parallel
    ended = [event for event in played.events if isinstance(event, ToolEnded)]
    per_step = Counter(event.run.steps for event in ended)
    assert max(per_step.values(), default=0) <= limits.calls_per_reply
    if carrier == "rounds":
        assert len(played.model.requests) <= (limits.rounds or 0)


@on_each_carrier
async def test_guarantee_5_time_is_not_overrun(carrier: Carrier) -> None:
    @tool
    async def wait() -> None:
        """Wait."""
        await anyio.sleep(60)

    agent = Agent("worker", tools=[wait], limits=Limits(seconds=0.2))
    with anyio.fail_after(10):
        model = ScriptedProvider(use("wait"), "Too late.")
        result = await carry(agent, "Go", provider=model, carrier=carrier)

    assert result.stop is Stop.SECONDS
    assert len(model.requests) == 1
    assert_balanced(result.messages)


# --- 6 -----------------------------------------------------------------------------------------


class Open(SpanProcessor):
    """The spans that have begun and not ended."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.ended = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.names[span.context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1
        assert span.context is not None
        del self.names[span.context.span_id]


@tool(timeout=0.02)
async def hangs() -> None:
    """Take too long."""
    await anyio.sleep(60)


@tool
async def lingers() -> None:
    """Take as long as nobody stops it."""
    await anyio.sleep(60)


@tool
async def raises() -> None:
    """Fail."""
    raise ValueError


@tool
def blocks() -> None:
    """Hold a thread."""


ENDINGS: dict[str, list[Any]] = {
    "an answer": [[use("raises"), use("blocks"), use("hangs")], "That is all."],
    "a limit": [[use("blocks")], [use("blocks")], [use("blocks")], "That is all."],
    "a refusal": [[use("blocks")], reply("No.", stop_reason="refusal")],
    "a failure": [[use("blocks")], RuntimeError("no model"), "That is all."],
    "its caller, in a tool": [[use("lingers"), use("blocks"), use("lingers")]],
    "its caller, in an ask": [[use("blocks")], 60.0, "Too late."],
}


@on_each_carrier
@pytest.mark.parametrize("ended_by", ENDINGS)
async def test_guarantee_6_nothing_outlives_its_run(carrier: Carrier, ended_by: str) -> None:
    spans, provider = Open(), TracerProvider()
    provider.add_span_processor(spans)
    agent = Agent(
        "worker",
        tools=[hangs, lingers, raises, blocks],
        limits=Limits(steps=3, errors=None),
    )
    model = ScriptedProvider(*ENDINGS[ended_by])
    leaks = Leaks()
    with anyio.move_on_after(0.4 if "caller" in ended_by else 20) as patience:
        await carry(
            agent,
            "Go",
            provider=model,
            carrier=carrier,
            on_event=OpenTelemetry(tracer_provider=provider),
        )

    assert patience.cancelled_caught == ("caller" in ended_by)
    await leaks.none_within(1)
    assert spans.ended
    assert not spans.names


# --- 7 -----------------------------------------------------------------------------------------

REFUSED = {-32600, -32602, -32603}
"""The codes with which a call may be refused."""


SHORT = Limits(steps=4, ask_seconds=0.2)
"""What cannot be read as an answer is none: the ask waits for another one."""


@dataclass
class Hostile:
    """A client that answers, calls and goes on with what is broken at random."""

    random: Random
    reply: JSON
    fine: bool = False

    async def answer(self, method: str, params: JSON) -> Any:
        return says(text("fine")) if self.fine else on_a_wire(self.broken(self.reply))

    def broken(self, value: Any) -> Any:
        whole = self.fine or self.random.random() < 0.2
        return value if whole else drawn.broken(value, self.random)

    async def call(self, wire: Wire) -> JSON:
        arguments = on_a_wire(self.broken(GO))
        return await wire.request("tools/call", {"name": "worker", "arguments": arguments})

    async def go_on(self, wire: Wire, round_: JSON) -> JSON:
        """A round as it should be, or with any part of it broken."""
        state = round_["requestState"]
        if self.random.random() < 0.3:
            state = drawn.garbled(state, self.random).encode(errors="replace").decode()
        answers = {key: await self.answer("", {}) for key in round_["inputRequests"]}
        return await wire.round("worker", GO, answers=on_a_wire(self.broken(answers)), state=state)

    async def update(self, wire: Wire, task: JSON) -> JSON:
        """A task's asks, answered with what is broken; and what it does then."""
        news = await following(wire, task["taskId"])
        while news["status"] == "input_required":
            answers = {key: await self.answer("", {}) for key in news["inputRequests"]}
            given = {"taskId": self.broken(task["taskId"]), "inputResponses": self.broken(answers)}
            try:
                await wire.request("tasks/update", on_a_wire(given))
            except Rejected as rejected:
                check_refusal(rejected)
                self.fine = True  # the ask is still open: it gets an answer, and the task its end
            news = await following(wire, task["taskId"])
        return news


async def following(wire: Wire, id: str) -> JSON:
    """What a task is doing, once it does not just work."""
    while (news := await wire.request("tasks/get", {"taskId": id}))["status"] == "working":  # noqa: ASYNC110
        await anyio.sleep(0.001)
    return news


def check_refusal(rejected: Rejected) -> None:
    assert rejected.code in REFUSED, rejected
    assert rejected.message
    assert "Traceback" not in rejected.message


def on_a_wire(value: Any) -> Any:
    """``value`` where it can be written and read again; nothing in its place."""
    try:
        from_json(f"[[[[{json.dumps(value, allow_nan=False)}]]]]")
    except ValueError:
        return {}
    return value


@pytest.mark.parametrize("carrier", [*CLIENTS, "task"])
@on_each_backend
@examples(15)
@given(drawn.replies, drawn.seeds)
def test_guarantee_7_no_input_of_a_client_causes_anything_but_a_result_or_a_clear_error(
    carrier: str, backend: str, reply: JSON, seed: int
) -> None:
    client = Hostile(Random(seed), reply)
    agent = Agent("worker", tools=[Played(ScriptedProvider()).add], limits=SHORT)
    server, capabilities = wired(agent, carrier)

    async def call(wire: Wire) -> JSON:
        result = await client.call(wire)
        while result.get("resultType") == "input_required":
            result = await client.go_on(wire, result)
        return await client.update(wire, result) if result.get("resultType") == "task" else result

    async def check() -> None:
        with anyio.fail_after(20):
            async with connected(
                server, client.answer, modern=carrier != PUSH, capabilities=capabilities
            ) as wire:
                for _ in range(5):
                    client.fine = False
                    try:
                        result = await call(wire)
                    except Rejected as rejected:
                        check_refusal(rejected)
                    else:
                        assert result.get("content") or result["status"] in ("completed", "failed")
                client.fine = True
                last = await wire.call("worker", GO)
                if carrier == "task":
                    last = (await client.update(wire, last))["result"]
                assert last["content"][0]["text"] == "fine", "the server serves on"

    anyio.run(check, backend=backend)


def wired(agent: Agent[Any], carrier: str) -> tuple[Server[Any], JSON]:
    """A server that offers ``agent``, and what a client declares that calls it."""
    if carrier != "task":
        return serving(agent, carrier), SAMPLING
    tasks = Tasks(MemoryStore())
    server: Server[Any] = Server("tasks", lifespan=tasks.lifespan())
    tasks.add_to(server)
    mount(server, agent, task="always")
    return server, {**SAMPLING, "extensions": {tasks.identifier: {}}}


# --- 8 -----------------------------------------------------------------------------------------

TRAVELS = {
    "direct": set[str](),
    "push": set[str](),
    "rounds": {"mcp/written.py"},
    "stored": {"mcp/written.py"},
}
"""What writes a history to the wire. What came with the next round is read in another process only:
this one has it still."""


@pytest.mark.parametrize("carrier", TRAVELS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_guarantee_8_a_step_costs_the_same_however_long_the_history_is(carrier: str) -> None:
    """Counted in calls of agentloop's functions on the server, which no clock disturbs."""
    early = await calls_in(carrier, 20) - await calls_in(carrier, 10)
    late = await calls_in(carrier, 80) - await calls_in(carrier, 40)
    # What grew with the history would be called four times as often; what is sent when there is
    # time for it, and forgotten when nobody holds it, comes a little more or less often.
    grows = {file for file in late if late[file] / 40 > early[file] / 10 * 1.5 + 0.5}

    assert early["loop.py"], "it is counted"
    assert grows == TRAVELS[carrier]


async def calls_in(carrier: str, steps: int) -> Counter[str]:
    """How often functions of each of agentloop's files were called in a run of so many steps."""
    played = Played(ScriptedProvider())
    agent = Agent(
        "worker", tools=[played.add], limits=Limits(steps=None, tool_calls=None, rounds=None)
    )
    home = f"{Path(agentloop.__file__).parent}/"
    counted: Counter[str] = Counter()
    lines = iter([calls("add", id=f"c{n}", a=5 * n) for n in range(steps - 1)])

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call" and (file := frame.f_code.co_filename).startswith(home):
            counted[file.removeprefix(home)] += 1

    async def answer(method: str, params: JSON) -> JSON:
        call = next(lines, None)
        return says(call) if call else says(text("done"))

    async def sample(request: CreateMessageRequestParams) -> Any:
        return CreateMessageResultWithTools.model_validate(await answer("", {}))

    async def run() -> None:
        if carrier == "direct":
            await agent.run("Go", provider=Answering(sample))
            return
        server = serving(agent, carrier)
        async with connected(server, answer, modern=carrier != PUSH) as wire:
            await wire.call("worker", GO, rounds=steps)

    gc.collect()
    gc.disable()  # what earlier runs left is not of this one
    sys.setprofile(count)
    try:
        await run()
    finally:
        sys.setprofile(None)
        gc.enable()
    assert len(played.ran) == steps - 1
    return counted


@dataclass
class Answering:
    """A provider that is a function."""

    sample: Callable[[CreateMessageRequestParams], Awaitable[Any]]
    name: str = "answering"
