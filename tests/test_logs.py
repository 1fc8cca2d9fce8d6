"""Runs as log lines."""

from __future__ import annotations

from typing import Any

import structlog
from mcp.server.mcpserver import MCPServer
from structlog.contextvars import get_contextvars, merge_contextvars

from agentloop import Agent, Limits, Stop, gather, tool
from agentloop.errors import OverloadedError
from agentloop.logs import StructLog
from agentloop.mcp import mount
from agentloop.testing import MockClient
from agentloop_providers.scripted import ScriptedProvider, reply, use

SECRET = "correct horse battery staple"
Lines = list[dict[str, Any]]


def listening(**options: Any) -> tuple[StructLog, Lines]:
    """A sink, and the lines that it logs."""
    lines: Lines = []
    return StructLog(logger(lines), **options), lines


def logger(lines: Lines) -> Any:
    def keep(_logger: Any, level: str, line: Any) -> Any:
        lines.append({"level": level, **line})
        raise structlog.DropEvent

    return structlog.wrap_logger(None, processors=[merge_contextvars, keep])


@tool
async def repeat(words: str) -> str:
    return words


@tool
async def fail() -> str:
    raise ValueError(SECRET)


async def test_a_run_in_lines() -> None:
    sink, lines = listening()
    script = ScriptedProvider(reply(use("repeat", id="c1", words="a"), use("fail")), "done")
    agent = Agent("parrot", tools=[repeat, fail])
    result = await agent.run("go", provider=script, on_event=sink)
    story = [(line["level"], line["event"], line.get("step")) for line in lines]
    assert story[:3] == [
        ("info", "run_started", None),
        ("debug", "ask_started", 1),
        ("info", "ask_ended", 1),
    ]
    assert sorted(story[3:7]) == [
        ("debug", "tool_started", 1),
        ("debug", "tool_started", 1),
        ("info", "tool_ended", 1),
        ("warning", "tool_ended", 1),
    ]
    assert story[7:] == [
        ("debug", "ask_started", 2),
        ("info", "ask_ended", 2),
        ("info", "run_ended", None),
    ]
    for line in lines:
        assert line["run_id"] == result.run.id
        assert (line["run_key"], line["agent"]) == ("0", "parrot")
    asked = lines[2]
    assert (asked["provider"], asked["carrier"], asked["calls"]) == ("scripted", "provider", 2)
    assert asked["seconds"] >= 0
    (called,) = [line for line in lines if line["event"] == "tool_ended" and not line["failed"]]
    assert (called["tool"], called["call_id"]) == ("repeat", "c1")
    assert (lines[-1]["stop"], lines[-1]["steps"], lines[-1]["tool_calls"]) == ("done", 2, 2)


async def test_nothing_that_was_said_is_logged() -> None:
    sink, lines = listening()
    agent = Agent("parrot", SECRET, tools=[repeat, fail])
    script = ScriptedProvider(
        reply(SECRET, use("repeat", words=SECRET), use("fail")), OverloadedError(SECRET)
    )
    await agent.run(SECRET, provider=script, on_event=sink)
    assert lines[-1]["error"] == "overloaded"
    assert SECRET not in repr(lines)


async def test_content_when_asked_for() -> None:
    sink, lines = listening(content=True)
    script = ScriptedProvider(reply(SECRET, use("repeat", words=SECRET)), OverloadedError(SECRET))
    await Agent("parrot", tools=[repeat]).run("go", provider=script, on_event=sink)
    by_event = {line["event"]: line for line in lines}
    assert by_event["ask_ended"]["text"] == SECRET
    assert SECRET in by_event["tool_ended"]["arguments"]
    assert by_event["tool_ended"]["result"] == SECRET
    assert SECRET in by_event["run_ended"]["message"]


async def test_redact_sees_each_line_before_it_is_logged() -> None:
    def redact(line: dict[str, Any]) -> dict[str, Any] | None:
        if line["event"].endswith("_started"):
            return None
        return {name: "***" if name == "result" else value for name, value in line.items()}

    sink, lines = listening(content=True, redact=redact)
    script = ScriptedProvider(use("repeat", words=SECRET), "done")
    await Agent("parrot", tools=[repeat]).run("go", provider=script, on_event=sink)
    assert [line["event"] for line in lines] == [
        "ask_ended",
        "tool_ended",
        "ask_ended",
        "run_ended",
    ]
    assert lines[1]["result"] == "***"


async def test_a_redact_that_fails_lets_nothing_through_and_stops_nothing() -> None:
    def redact(line: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("bug")

    sink, lines = listening(redact=redact)
    with structlog.testing.capture_logs() as captured:
        result = await Agent("a").run("go", provider=ScriptedProvider("hi"), on_event=sink)
    assert (result.text, lines) == ("hi", [])
    assert {line["event"] for line in captured} == {"event_sink_failed"}


async def test_names_that_models_choose_do_not_steer_a_terminal() -> None:
    sink, lines = listening()
    name = "\x1b[2Jx\nrun_ended level=error " + "y" * 500
    await Agent("a").run("go", provider=ScriptedProvider(use(name), "done"), on_event=sink)
    (line,) = [line for line in lines if line["event"] == "tool_ended"]
    assert line["tool"].isprintable()
    assert len(line["tool"]) < 200


async def test_what_tools_log_says_in_which_run_and_call() -> None:
    lines: Lines = []
    log = logger(lines)

    @tool
    async def work() -> str:
        log.info("at work")
        return "ok"

    @tool
    def work_in_a_thread() -> str:
        log.info("at work in a thread")
        return "ok"

    sink = StructLog(structlog.wrap_logger(None, processors=[_drop]))
    script = ScriptedProvider(reply(use("work", id="a"), use("work_in_a_thread", id="b")), "done")
    agent = Agent("worker", tools=[work, work_in_a_thread])
    result = await agent.run("go", provider=script, on_event=sink)
    said = {line["event"]: line for line in lines}
    for event, call in (("at work", "a"), ("at work in a thread", "b")):
        assert said[event]["run_id"] == result.run.id
        assert (said[event]["call_id"], said[event]["step"]) == (call, 1)
    assert get_contextvars() == {}


async def test_runs_side_by_side_are_told_apart() -> None:
    sink, lines = listening()
    agents = [Agent(name) for name in ("first", "second")]
    await gather(
        *(a.run("go", provider=ScriptedProvider(0.01, a.name), on_event=sink) for a in agents)
    )
    ended = [line for line in lines if line["event"] == "run_ended"]
    assert {(line["agent"], line["run_key"]) for line in ended} == {("first", "0"), ("second", "0")}
    assert len({line["run_id"] for line in ended}) == 2


async def test_rounds_are_told_as_suspensions_of_one_run() -> None:
    sink, lines = listening()
    server = MCPServer("s", log_level="ERROR")
    mount(server, Agent("clerk"), on_event=sink)
    async with MockClient(server, ScriptedProvider(0.05, "hello")) as client:
        await client.call_tool("clerk", {"prompt": "hi"})
    assert [line["event"] for line in lines] == [
        "run_started",
        "ask_started",
        "run_suspended",
        "run_started",
        "ask_ended",
        "run_ended",
    ]
    assert len({line["run_id"] for line in lines}) == 1
    assert lines[3]["resumed"]
    assert lines[4]["carrier"] == "rounds"
    assert 0.04 < lines[4]["seconds"] < 5, "the client's time, over two entries of the function"


async def test_every_stop_but_done_is_a_warning() -> None:
    sink, lines = listening()
    agent = Agent("a", tools=[repeat], limits=Limits(steps=1))
    result = await agent.run("go", provider=ScriptedProvider("hi"), on_event=sink)
    assert (result.stop, lines[-1]["level"]) == (Stop.STEPS, "warning")


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent
