"""Tools that hang, raise, give nonsense, ignore being told to stop, or end more than themselves."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import (
    AudioContent,
    CallToolResult,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    ToolResultContent,
)
from pydantic import BaseModel

from agentloop import Agent, Limits, Tool, ToolError, tool
from agentloop.errors import DefinitionError
from agentloop.events import Event, RunEnded
from agentloop.mcp import tools_from
from agentloop.run import Run, Stop
from agentloop.strays import left_behind
from agentloop.testing.backend import Call, Says, served
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.messages_api import MessagesBackend
from agentloop.testing.responses_api import ResponsesBackend
from agentloop_providers import (
    AnthropicProvider,
    OpenAIChatProvider,
    OpenAIProvider,
    ScriptedProvider,
)
from agentloop_providers.scripted import use
from tests.faults.kit import (
    PROVIDER,
    PUSH,
    ROUNDS,
    STORED,
    Model,
    Raw,
    check_history,
    play,
    serving,
)
from tests.faults.wire import PEOPLE, Refuse, Silence, connected

pytestmark = pytest.mark.usefixtures("no_leaks")

CANARY = "hunter2-canary"


async def fine(n: int = 0) -> str:
    """Work."""
    return f"fine {n}"


def agent_with(*tools: Any, **limits: Any) -> Agent[str]:
    return Agent("worker", tools=[*tools], limits=Limits(**limits))


async def lag_of(work: Callable[[], Awaitable[Any]]) -> float:
    """How long the event loop was held at most while ``work`` was done, at the best of 3 tries.

    Other processes hold it, too: what counts is whether it can be free.
    """
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await anyio.sleep(0.002)
            lags[-1] = max(lags[-1], time.monotonic() - began - 0.002)

    for _ in range(3):
        lags.append(0.0)
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await work()
            group.cancel_scope.cancel()
        if lags[-1] < 0.1:
            break
    return min(lags)


# --- approvals ---------------------------------------------------------------------------------


def guarded(approve: Any, **options: Any) -> Tool:
    @tool(approve=approve, **options)
    async def pay(amount: int = 1) -> str:
        raise AssertionError("not approved")

    return pay


@pytest.mark.fault("B23")
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_an_approval_that_is_denied(carrier: str, action: Any) -> None:
    async def user(params: Any) -> ElicitResult:
        return ElicitResult(action=action)

    played = await play(
        carrier,
        agent_with(guarded(True), fine),
        [use("pay"), use("fine")],
        "no, then",
        user=user,
        capabilities=PEOPLE,
    )
    assert played.results == [
        ("Not run: the user did not approve it.", True),
        ("fine 0", False),
    ]


async def raising(amount: int) -> bool:
    raise ValueError(CANARY)


def leaving(amount: int) -> bool:
    raise SystemExit(CANARY)


async def cancelling(amount: int) -> bool:
    raise asyncio.CancelledError(CANARY)


@pytest.mark.fault("B23")
@pytest.mark.parametrize("approve", [raising, leaving, cancelling])
async def test_an_approval_that_breaks(carrier: str, approve: Any, logs: list[Any]) -> None:
    played = await play(
        carrier, agent_with(guarded(approve), fine), [use("pay"), use("fine")], "no, then"
    )
    (text, is_error), good = played.results
    assert is_error
    assert "could not be decided" in text
    assert good == ("fine 0", False)
    assert CANARY not in f"{text}{logs}"


@pytest.mark.fault("B23")
async def test_an_approval_that_is_never_decided(carrier: str) -> None:
    over = threading.Event()

    async def never(amount: int) -> bool:
        await anyio.sleep_forever()
        return True

    def blocked(amount: int) -> bool:
        over.wait()
        return True

    try:
        for approve in (never, blocked):
            played = await play(
                carrier, agent_with(guarded(approve, timeout=0.05)), [use("pay")], "no, then"
            )
            ((text, is_error),) = played.results
            assert is_error
            assert "not decided in time" in text
    finally:
        over.set()


@pytest.mark.fault("B23", on=(PROVIDER, PUSH))
async def test_a_person_who_never_answers(carrier: str) -> None:
    async def user(params: Any) -> Any:
        if carrier == PUSH:
            return Silence
        return await anyio.sleep_forever()

    played = await play(
        carrier,
        agent_with(guarded(True), seconds=0.3),
        [use("pay")],
        user=user,
        capabilities=PEOPLE,
    )
    assert played.stop is Stop.SECONDS
    ((text, is_error),) = played.results
    assert is_error
    assert "did not answer in time" in text


@pytest.mark.fault("B23", on=(ROUNDS, STORED))
async def test_a_person_who_never_answers_costs_nothing_in_rounds(carrier: str) -> None:
    server = serving(agent_with(guarded(True)), carrier)
    model = Model([use("pay")])
    async with connected(server, model.answer, modern=True, capabilities=PEOPLE) as wire:
        first = await wire.round("worker", {"prompt": "Go"})
        answers = await wire.answers_to(first)
        second = await wire.round(
            "worker", {"prompt": "Go"}, answers=answers, state=first["requestState"]
        )
    methods = [request["method"] for request in second["inputRequests"].values()]
    assert methods == ["elicitation/create"]


@pytest.mark.fault("B23", on=(PROVIDER,))
async def test_whoever_answers_for_the_person_may_break(carrier: str, logs: list[Any]) -> None:
    async def user(params: Any) -> ElicitResult:
        raise ValueError(CANARY)

    played = await play(carrier, agent_with(guarded(True)), [use("pay")], "no", user=user)
    ((text, is_error),) = played.results
    assert is_error
    assert CANARY not in f"{text}{logs}"


@pytest.mark.fault("B23", on=(PUSH,))
@pytest.mark.parametrize("answer", [Refuse(), Refuse(-32603, CANARY), Raw({"action": "maybe"})])
async def test_a_client_that_cannot_ask_its_user_after_all(carrier: str, answer: Any) -> None:
    async def user(params: Any) -> Any:
        return answer

    played = await play(
        carrier, agent_with(guarded(True)), [use("pay")], "no", user=user, capabilities=PEOPLE
    )
    ((text, is_error),) = played.results
    assert is_error
    assert "could not ask" in text


# --- exceptions --------------------------------------------------------------------------------


@pytest.mark.fault("B24")
async def test_one_of_three_raises(carrier: str) -> None:
    async def broken() -> str:
        raise ValueError("no")

    played = await play(
        carrier, agent_with(broken, fine), [use("fine", n=1), use("broken"), use("fine", n=2)], "ok"
    )
    assert played.results == [
        ("fine 1", False),
        ("The tool failed with ValueError.", True),
        ("fine 2", False),
    ]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.fault("B24")
async def test_exceptions_that_are_hard_to_tell(carrier: str) -> None:
    async def mute() -> str:
        raise Unspeakable

    async def grouped() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(mute)
        return "never"

    async def empty() -> str:
        raise ToolError("")

    played = await play(
        carrier, agent_with(mute, grouped, empty), [use("mute"), use("grouped"), use("empty")], "ok"
    )
    assert [is_error for _, is_error in played.results] == [True] * 3
    assert "Unspeakable" in played.results[0][0]
    assert "Unspeakable" in played.results[1][0]


@pytest.mark.fault("B26")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_would_end_the_process_ends_the_call(
    carrier: str, kind: type[BaseException]
) -> None:
    async def leave() -> str:
        raise kind

    def leave_thread() -> str:
        raise kind

    played = await play(
        carrier,
        agent_with(leave, leave_thread, fine),
        [use("leave"), use("leave_thread"), use("fine")],
        "still here",
    )
    assert [is_error for _, is_error in played.results] == [True, True, False]
    assert played.stop is Stop.DONE


INTERRUPTED = """
import sys, anyio
from agentloop import Agent
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

async def slow():
    print("begun", flush=True)
    await anyio.sleep(60)

async def main():
    await Agent("worker", tools=[slow]).run("Go", provider=ScriptedProvider([use("slow")]))

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.fault("B26", on=(PROVIDER,))
@pytest.mark.timeout(30)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_real_sigint_still_stops(carrier: str, backend: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, backend]
    async with await anyio.open_process(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert (await process.stdout.receive()).startswith(b"begun")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert await process.wait() != 0
        assert time.monotonic() - began < 5
        assert b"KeyboardInterrupt" in await process.stderr.receive()


@pytest.mark.fault("B27")
async def test_a_tool_that_cancels_itself(carrier: str) -> None:
    async def selfish() -> str:
        raise asyncio.CancelledError

    async def scoped() -> str:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep_forever()
        return "came back"

    played = await play(
        carrier,
        agent_with(selfish, scoped, fine),
        [use("selfish"), use("scoped"), use("fine")],
        "ok",
    )
    assert [is_error for _, is_error in played.results] == [True, False, False]
    assert played.stop is Stop.DONE


# --- time --------------------------------------------------------------------------------------


@pytest.mark.fault("B28")
async def test_a_tool_that_hangs(carrier: str) -> None:
    stopped: list[str] = []

    @tool(timeout=0.1)
    async def hang() -> str:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.append("hang")
        return "never"

    played = await play(carrier, agent_with(hang, fine), [use("hang"), use("fine")], "ok")
    assert played.results == [("Timed out after 0.1 s.", True), ("fine 0", False)]
    assert stopped == ["hang"]


@pytest.mark.fault("B29")
async def test_a_tool_that_will_not_stop(carrier: str, logs: list[Any]) -> None:
    over = anyio.Event()

    @tool(timeout=0.05, grace=0.05)
    async def stubborn() -> str:
        while not over.is_set():
            with suppress(BaseException):
                await over.wait()
        return "at last"

    played = await play(carrier, agent_with(stubborn, fine), [use("stubborn"), use("fine")], "ok")
    (text, is_error), good = played.results
    assert is_error
    assert "could not be stopped" in text
    assert good == ("fine 0", False)
    assert left_behind() == 1
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
        "tool_left_behind"
    ]
    over.set()


@pytest.mark.fault("B30")
@pytest.mark.timeout(15)
async def test_a_tool_that_blocks(carrier: str) -> None:
    def block() -> str:
        time.sleep(0.4)
        return "done"

    async def work() -> None:
        played = await play(carrier, agent_with(block), [use("block")], "ok")
        assert played.results == [("done", False)]

    assert await lag_of(work) < 0.1


@pytest.mark.fault("B31")
@pytest.mark.timeout(20)
async def test_tools_that_never_return(carrier: str) -> None:
    over = threading.Event()

    @tool(timeout=0.05)
    def stuck(n: int) -> str:
        over.wait()
        return "at last"

    texts: list[str] = []

    async def work() -> None:
        script = [[use("stuck", id=f"c{n}", n=n) for n in range(50)]] * 2
        played = await play(carrier, agent_with(stuck, errors=None), *script, "enough")
        assert [is_error for _, is_error in played.results] == [True] * 100
        texts[:] = [text for text, _ in played.results]

    try:
        lag = await lag_of(work)
    finally:
        over.set()
    late = sum("Timed out" in text for text in texts)
    refused = sum("still block their threads" in text for text in texts)
    assert late + refused == 100
    assert late <= 8 + 16
    assert lag < 0.1


# --- results -----------------------------------------------------------------------------------


async def shout() -> str:
    return "a" + "x" * 50_000_000 + "z"


async def many() -> list[TextContent]:
    return [TextContent(text=f"block {n}") for n in range(10_000)]


async def picture() -> ImageContent:
    return ImageContent(data="A" * 20_000_000, mime_type="image/png")


@pytest.mark.fault("B32")
@pytest.mark.timeout(20)
async def test_output_that_is_too_much(carrier: str) -> None:
    played = await play(
        carrier, agent_with(shout, many, picture), [use("shout"), use("many"), use("picture")], "ok"
    )
    for text, _ in played.results:
        assert "left out" in text
    assert played.results[0][0][0] + played.results[0][0][-1] == "az"
    for request in played.requests:
        assert len(request.model_dump_json()) < 64 * 1024


class Plain:
    pass


class Knot(BaseModel):
    inner: Any = None


async def odd(kind: str) -> Any:
    cycle: list[Any] = []
    cycle.append(cycle)
    knot = Knot()
    knot.inner = knot
    values: dict[str, Any] = {
        "cycle": cycle,
        "knot": knot,
        "nan": {"x": float("nan"), "y": float("-inf")},
        "bytes": b"\xff\xfe",
        "object": Plain(),
        "generator": (n for n in range(3)),
        "set": {1, 2},
        "lambda": lambda: 1,
        "deep": json.loads("[" * 900 + "]" * 900),
        "huge": 10**5000,
        "keys": {(1, 2): "tuple key", None: 1},
        "class": Plain,
        "error": ValueError(CANARY),
    }
    return values[kind]


KINDS = (
    "cycle", "knot", "nan", "bytes", "object", "generator", "set", "lambda", "deep", "huge",
    "keys", "class", "error",
)  # fmt: skip


@pytest.mark.fault("B33")
async def test_results_that_are_no_json(carrier: str) -> None:
    uses = [use("odd", kind=kind) for kind in KINDS]
    played = await play(carrier, agent_with(odd), uses, "ok")
    found = dict(zip(KINDS, played.results, strict=True))
    assert found["nan"] == ('{"x":NaN,"y":-Infinity}', False)
    for kind in ("cycle", "knot", "object", "generator", "lambda"):
        assert found[kind][1], kind
    assert found["set"] == ("[1,2]", False)
    assert played.stop is Stop.DONE


async def garbled(kind: str) -> Any:
    values: dict[str, Any] = {
        "surrogate": "a\ud800b",
        "nul": "a\0b",
        "bytes": b"\xff\0",
        "nested": {"\udc00": ["\ud800", {"x": "\0"}]},
        "block": TextContent(text="\ud800", _meta={"k": "\udfff"}),
        "link": ResourceLink(name="\ud800", uri="file:///\ud800"),
        "result": CallToolResult(
            content=[TextContent(text="\ud800")], structured_content={"\ud800": "\0"}
        ),
    }
    if kind == "error":
        raise ToolError("\ud800\0")
    return values[kind]


@pytest.mark.fault("B34")
async def test_text_that_no_wire_takes(carrier: str) -> None:
    kinds = ("surrogate", "nul", "bytes", "nested", "block", "link", "result", "error")
    uses = [use("garbled", kind=kind) for kind in kinds]
    played = await play(carrier, agent_with(garbled, fine), uses, [use("fine")], "ok")
    assert played.results[0] == ("a\ufffdb", False)
    assert played.results[1] == ("a\ufffdb", False)
    assert played.results[-1] == ("fine 0", False)
    assert played.stop is Stop.DONE


async def nothing(kind: str) -> Any:
    return {"none": None, "text": "", "list": [], "dict": {}, "blocks": CallToolResult(content=[])}[
        kind
    ]


@pytest.mark.fault("B35")
async def test_results_of_nothing(carrier: str) -> None:
    uses = [use("nothing", kind=kind) for kind in ("none", "text", "list", "dict", "blocks")]
    played = await play(carrier, agent_with(nothing), uses, "ok")
    assert played.results == [
        ("null", False),
        ("", False),
        ("[]", False),
        ("{}", False),
        ("", False),
    ]


# --- cancellation ------------------------------------------------------------------------------


@pytest.mark.fault("B36")
async def test_cancelled_while_three_tools_run(carrier: str) -> None:
    begun = anyio.Event()
    over = anyio.Event()
    running: set[int] = set()
    cleaned: set[int] = set()

    async def slow(n: int) -> str:
        running.add(n)
        if len(running) == 3:
            begun.set()
        try:
            await anyio.sleep(60)
        finally:
            cleaned.add(n)
            if len(cleaned) == 3:
                over.set()
        return "never"

    agent = agent_with(slow)
    model = Model([use("slow", n=n) for n in range(3)])
    ended: list[Event] = []
    if carrier == PROVIDER:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await begun.wait()
                    scope.cancel()

                group.start_soon(cancel)
                await agent.run("Go", provider=model, on_event=ended.append)
        assert scope.cancelled_caught
        assert isinstance(ended[-1], RunEnded)
        assert ended[-1].run.stop is Stop.CANCELLED
        check_history(list(ended[-1].run.messages))
    else:
        server = serving(agent, carrier, on_event=ended.append)
        async with connected(server, model.answer, modern=carrier != PUSH) as wire:
            arguments = {"name": "worker", "arguments": {"prompt": "Go"}}
            if carrier != PUSH:
                first = await wire.round("worker", {"prompt": "Go"})
                arguments |= {
                    "inputResponses": await wire.answers_to(first),
                    "requestState": first["requestState"],
                }
            id = await wire.begin("tools/call", arguments)
            await begun.wait()
            await wire.cancel(id)
            with anyio.fail_after(1):
                await over.wait()
    assert cleaned == {0, 1, 2}


@pytest.mark.fault("B37", on=(PROVIDER,))
async def test_a_cancelled_run_goes_to_the_next_model(carrier: str) -> None:
    """A strict model takes the history of a run that was cancelled between reply and results."""
    ended: list[Run] = []

    def note(event: Event) -> None:
        if isinstance(event, RunEnded):
            ended.append(event.run)

    async def slow() -> str:
        await anyio.sleep(60)
        return "never"

    agent = agent_with(slow, fine)
    with anyio.move_on_after(0.1):
        script = ScriptedProvider([use("fine"), use("slow")])
        await agent.run("Go", provider=script, on_event=note)
    assert ended[0].stop is Stop.CANCELLED
    check_history(list(ended[0].messages))
    backend = MessagesBackend()
    backend.says(Says(text="I go on"))
    with served(backend):
        async with AnthropicProvider(
            backend.model, api_key=backend.key, base_url=backend.url
        ) as provider:
            result = await agent.run("On", provider=provider, history=ended[0].messages)
    assert (result.stop, backend.problems) == (Stop.DONE, [])
    sent = json.dumps(backend.requests[0])
    assert "fine 0" in sent
    assert "Not run: the run ended (cancelled)." in sent


# --- agents inside agents, and what is defined ----------------------------------------------------


@pytest.mark.fault("B43")
async def test_an_agent_that_starts_itself(carrier: str) -> None:
    depths: list[int] = []

    async def again(depth: int) -> str:
        depths.append(depth)
        result = await agent.run(f"depth {depth + 1}")
        return result.text

    agent = agent_with(again)

    def say(request: Any) -> Any:
        first = request.messages[0].content_as_list[0].text
        depth = int(first.partition("depth ")[2] or 0)
        if len(request.messages) == 1:
            return [use("again", id="c", depth=depth)]
        return f"back at {depth}"

    played = await play(carrier, agent, say, repeat=True)
    assert sorted(set(depths)) == [0, 1, 2, 3]
    assert set(played.runs) == {"0", *("0" + "/1.0/0" * n for n in (1, 2, 3))}
    deepest = played.runs["0" + "/1.0/0" * 3]
    assert "more than 4 agents inside one another" in str(list(deepest.messages))
    assert played.run.text == "back at 0"
    assert played.run.usage.asks == 8


@pytest.mark.fault("B44")
@pytest.mark.parametrize("api", ["messages", "chat", "responses"])
async def test_content_that_a_model_cannot_read(carrier: str, api: str) -> None:
    kinds: Any = {
        "messages": (MessagesBackend, AnthropicProvider, ""),
        "chat": (ChatBackend, OpenAIChatProvider, "/v1"),
        "responses": (ResponsesBackend, OpenAIProvider, "/v1"),
    }
    backend_class, provider_class, path = kinds[api]
    backend = backend_class()
    backend.says(Says(text="seen"))
    blocks = [
        AudioContent(data="AAAA", mime_type="audio/odd"),
        ResourceLink(name="a link", uri="file:///link.txt"),
        EmbeddedResource(resource=TextResourceContents(uri="file:///f", text="embedded words")),
        ImageContent(data="AAAA", mime_type="image/tiff"),
    ]
    history = [
        SamplingMessage(role="user", content=TextContent(text="look")),
        SamplingMessage(role="assistant", content=[use("look", id="c1")]),
        SamplingMessage(role="user", content=[ToolResultContent(tool_use_id="c1", content=blocks)]),
    ]
    with served(backend):
        async with provider_class(
            backend.model, api_key=backend.key, base_url=backend.url + path
        ) as provider:
            result = await Agent("worker").run("Well?", provider=provider, history=history)
    assert (result.stop, backend.problems) == (Stop.DONE, [])
    sent = json.dumps(backend.requests[0])
    for text in ("audio/odd", "file:///link.txt", "embedded words", "image/tiff"):
        assert text in sent


@pytest.mark.fault("B45")
async def test_names_and_schemas_that_cannot_be(carrier: str) -> None:
    for name in ("", "n" * 200, "größe", "a b", "a/b"):
        with pytest.raises(DefinitionError, match="name"):
            tool(name=name)(fine)
    with pytest.raises(DefinitionError, match="two tools"):
        Agent("worker", tools=[fine, tool(name="fine")(shout)])
    for schema in ({}, {"type": "string"}, {"type": None}):
        with pytest.raises(DefinitionError, match="schema"):
            Tool(name="x", description="", input_schema=schema, fn=fine, check=lambda given: given)


@pytest.mark.fault("B45")
async def test_dotted_names_come_back_as_they_went(carrier: str) -> None:
    called: list[str] = []

    def named(name: str) -> Tool:
        @tool(name=name, description=f"The tool called {name}.")
        async def call() -> str:
            called.append(name)
            return name

        return call

    names = ["a.b", "a_b", "a" * 100 + ".x", "a" * 100 + ".y"]
    backend = ChatBackend()
    backend.says(Says(calls=tuple(Call(name) for name in names)), Says(text="ok"))
    with served(backend):
        async with OpenAIChatProvider(
            backend.model, api_key=backend.key, base_url=f"{backend.url}/v1"
        ) as provider:
            agent = Agent("worker", tools=[named(name) for name in names])
            result = await agent.run("Go", provider=provider)
    assert (sorted(called), backend.problems) == (sorted(names), [])
    assert result.stop is Stop.DONE


@pytest.mark.fault("B40")
async def test_references_to_the_network_are_not_followed(carrier: str) -> None:
    reached: list[bytes] = []

    async def canary(stream: Any) -> None:
        async with stream:
            reached.append(await stream.receive())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        schema = {
            "type": "object",
            "properties": {
                "a": {"$ref": f"http://127.0.0.1:{port}/schema.json"},
                "b": {"$ref": "file:///etc/passwd"},
            },
        }
        server = MCPServer("remote", log_level="CRITICAL")

        @server.tool()
        async def look(a: Any, b: Any) -> str:
            return f"saw {a} {b}"

        (offered,) = await tools_from(server)
        object.__setattr__(offered, "input_schema", schema)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, canary)
            played = await play(carrier, agent_with(offered), [use("look", a=1, b=2)], "ok")
            await anyio.sleep(0.05)
            group.cancel_scope.cancel()
    assert played.results == [("saw 1 2", False)]
    assert reached == []
    assert played.requests[0].tools is not None
    assert played.requests[0].tools[0].input_schema == schema
