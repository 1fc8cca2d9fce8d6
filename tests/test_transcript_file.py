"""Transcripts as files: what is written, and what is read back, also by later versions."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from agentloop import Agent, Limits, RunResult, gather, tool
from agentloop.errors import OverloadedError, StateError
from agentloop.events import all_of
from agentloop.mcp import mount
from agentloop.run import Run
from agentloop.story import Story
from agentloop.testing import MockClient
from agentloop.timeline import read, tell
from agentloop.transcript_file import TranscriptFile
from agentloop_providers.scripted import ScriptedProvider, reply, use


@tool
async def look(at: str) -> str:
    await anyio.sleep(0.02)
    return f"saw {at}"


@tool
async def fail() -> str:
    raise ValueError("no")


helper = Agent("helper", tools=[look])
agent = Agent("boss", "Be brief.", tools=[look, fail, helper.as_tool()])


def script() -> ScriptedProvider:
    return ScriptedProvider(
        reply("Let me see.", use("look", at="a"), use("fail"), use("helper", prompt="look at b")),
        use("look", at="b"),
        "b is fine",
        "all is fine",
    )


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def messages_of(file: Path, run: str) -> list[Any]:
    return [e["message"] for e in entries(file) if e.get("event") == "message" and e["run"] == run]


def check_story(story: Story, result: RunResult[Any]) -> None:
    """What every way to write the run above must come to."""
    assert (story.id, story.agent, story.stop) == (result.run.id, "boss", "done")
    assert story.text == "all is fine"
    assert story.usage["input_tokens"] == result.usage.input_tokens
    assert [(call.name, call.failed) for call in story.steps[0].calls] == [
        ("look", False),
        ("fail", True),
        ("helper", False),
    ]
    call = story.steps[0].calls[0]
    assert call.input == {"at": "a"}
    assert call.result == [{"type": "text", "text": "saw a"}]
    (inner,) = story.steps[0].calls[2].runs
    assert (inner.agent, inner.text) == ("helper", "b is fine")
    assert [call.name for call in inner.calls] == ["look"]


def check_times(story: Story) -> None:
    """Calls of one step ran at the same time, after their ask and before the next one."""
    first, second = story.steps
    assert first.ask.began is not None
    assert second.ask.began is not None
    look_, helper_ = first.calls[0], first.calls[2]
    assert look_.began is not None
    assert look_.ended is not None
    assert helper_.began is not None
    assert helper_.ended is not None
    assert first.ask.began <= (first.ask.ended or 0) <= look_.began
    assert helper_.began < look_.ended < helper_.ended <= second.ask.began
    (inner,) = helper_.runs
    assert helper_.began <= (inner.steps[0].ask.began or 0)
    assert 0.015 < look_.ended - look_.began < 5


async def test_a_result_saves_its_transcript(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    result = await agent.run("go", provider=script())
    result.save(file)
    (story,) = read(file)
    check_story(story, result)
    check_times(story)
    assert messages_of(file, result.run.id) == result.run.messages.to_json()
    assert story.instructions == "Be brief."


async def test_a_result_holds_its_run_once_and_none_of_its_earlier_states() -> None:
    asker = ScriptedProvider(*[reply(use("look", at=str(n))) for n in range(8)], "done")
    result = await Agent("looker", tools=[look]).run("Look", provider=asker)
    gc.collect()
    states = [it for it in gc.get_objects() if isinstance(it, Run) and it.id == result.run.id]
    assert states == [result.run]


async def test_a_file_that_is_written_as_it_happens_says_the_same(tmp_path: Path) -> None:
    live, after = tmp_path / "live.jsonl", tmp_path / "after.jsonl"
    with TranscriptFile(live) as sink:
        result = await agent.run("go", provider=script(), on_event=sink)
    result.save(after)

    def told(file: Path) -> list[Any]:
        return [{k: v for k, v in e.items() if k not in ("t", "at")} for e in entries(file)]

    assert told(live) == told(after)
    (story,) = read(live)
    check_story(story, result)
    check_times(story)


async def test_messages_are_written_once_though_notices_come_late(tmp_path: Path) -> None:
    """Warnings are put into results that were given already, up to the next ask."""
    file = tmp_path / "run.jsonl"
    careful = Agent("careful", tools=[look], limits=Limits(steps=3))
    provider = ScriptedProvider(*(use("look", at=str(n)) for n in range(3)))
    with TranscriptFile(file) as sink:
        result = await careful.run("go", provider=provider, on_event=sink)
    assert "limit of steps" in str(result.run.messages.to_json())
    assert messages_of(file, result.run.id) == result.run.messages.to_json()


async def test_what_a_killed_process_wrote_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with TranscriptFile(file) as sink:
        await agent.run("go", provider=script(), on_event=sink)
    whole = file.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole), 97):
        file.write_bytes(whole[:cut])
        read(file)
    file.write_bytes(whole[: whole.index(b'"tool_ended"')])
    (story,) = read(file)
    assert (story.stop, story.ended) == ("", None)
    assert [call.ended for call in story.steps[0].calls] == [None, None, None]


async def test_one_file_takes_runs_that_go_on_at_the_same_time(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with TranscriptFile(file) as sink:
        results = await gather(
            *(agent.run("go", provider=script(), on_event=sink) for _ in range(3))
        )
    stories = {story.id: story for story in read(file)}
    assert len(stories) == 3
    for result in results:
        check_story(stories[result.run.id], result)


async def test_rounds_are_one_run_and_asks_last_until_they_are_answered(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    server = MCPServer("s", log_level="ERROR")
    with TranscriptFile(file) as sink:
        mount(server, agent, on_event=sink)
        provider = ScriptedProvider(0.05, use("look", at="a"), 0.05, "done")
        async with MockClient(server, provider) as client:
            await client.call_tool("boss", {"prompt": "go"})
    (story,) = read(file)
    assert (story.parts, story.stop, len(story.steps)) == (3, "done", 2)
    for step in story.steps:
        assert 0.04 < (step.ask.ended or 0) - (step.ask.began or 0) < 5
    assert len(messages_of(file, story.id)) == 4


async def test_files_of_several_replicas_make_one_story_in_any_order(tmp_path: Path) -> None:
    """Each replica tells the messages that it was brought; together each counts once."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    sinks = [TranscriptFile(file) for file in files]
    turn = 0

    def one_of_them(event: Any) -> None:
        nonlocal turn
        if type(event).__name__ == "RunStarted":
            turn += 1
        sinks[turn % 2](event)

    server = MCPServer("s", log_level="ERROR")
    mount(server, agent, on_event=one_of_them)
    provider = ScriptedProvider(use("look", at="a"), use("look", at="b"), "done")
    async with MockClient(server, provider) as client:
        await client.call_tool("boss", {"prompt": "go"})
    for sink in sinks:
        sink.close()
    texts = [file.read_text(encoding="utf-8") for file in files]
    for order in (texts, texts[::-1]):
        (story,) = tell("".join(order).splitlines())
        assert (story.parts, story.stop) == (4, "done")
        assert [[call.input for call in step.calls] for step in story.steps] == [
            [{"at": "a"}],
            [{"at": "b"}],
            [],
        ]
        assert story.text == "done"


async def test_append_goes_on_with_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    for _ in range(2):
        with TranscriptFile(file, append=True) as sink:
            await helper.run("go", provider=ScriptedProvider("hi"), on_event=sink)
    assert [story.text for story in read(file)] == ["hi", "hi"]


async def test_a_run_that_failed_tells_why(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    result = await helper.run("go", provider=ScriptedProvider(OverloadedError("529")))
    result.save(file)
    (story,) = read(file)
    assert (story.stop, story.error) == ("failed", "overloaded: 529")
    assert story.steps[0].ask.ended is None


async def test_a_result_of_which_no_times_are_known_is_saved_without(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    result = await agent.run("go", provider=script())
    RunResult(result.run).save(file)
    (story,) = read(file)
    assert (story.stop, story.text) == ("done", "all is fine")
    assert [call.began for call in story.calls] == [None, None, None]
    assert [call.name for call in story.steps[0].calls] == ["look", "fail", "helper"]


async def test_broken_text_does_not_break_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    nasty = 'a\n{"event": "run_ended"}\u2028\x00\x1b[2J\ud800 b'
    result = await helper.run(nasty, provider=ScriptedProvider(use("look", at=nasty), nasty))
    result.save(file)
    (story,) = read(file)
    assert story.stop == "done"
    assert "run_ended" in story.text
    assert len(story.steps) == 2


# --- other versions ----------------------------------------------------------------------------

HEADER = '{"agentloop":"transcript","version":1,"at":100.0}'


def test_what_a_reader_does_not_know_is_skipped() -> None:
    lines = [
        '{"agentloop":"transcript","version":1,"at":100.0,"colour":"blue"}',
        '{"event":"run_started","t":0,"run":"r","key":"0","agent":"a","mood":"good"}',
        '{"event":"thought","t":0.5,"run":"r","key":"0","about":["much"]}',
        '{"event":"run_ended","t":1,"run":"r","key":"0","stop":"bored"}',
        '["not", "an", "object"]',
        "",
    ]
    (story,) = tell(lines)
    assert (story.agent, story.stop, story.began, story.ended) == ("a", "bored", 100.0, 101.0)


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ('{"agentloop":"transcript","version":2}', "version 2.*versions up to 1.*later agentloop"),
        ('{"agentloop":"transcript","version":"new"}', "version new"),
        ('{"agentloop":"recording","version":1}', "recording"),
        ('{"event":"run_started"}', "does not begin as one"),
        ("PK\x03\x04", "does not begin as one"),
        ("", "empty"),
    ],
)
def test_what_is_no_transcript_is_refused_in_one_line(first: str, says: str) -> None:
    with pytest.raises(StateError, match=says) as caught:
        tell([first])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ['"x"', "null", "[1]", "1e999", "-5", '{"a":1}', "true", "NaN"])
def test_values_of_the_wrong_kind_count_as_absent(wrong: str) -> None:
    fields = [
        "t",
        "run",
        "key",
        "agent",
        "began",
        "resumed",
        "instructions",
        "tools",
        "trace",
        "n",
        "message",
        "step",
        "provider",
        "seconds",
        "model",
        "stop_reason",
        "usage",
        "number",
        "call",
        "name",
        "failed",
        "stop",
        "error",
        "answer",
    ]
    events = [
        "run_started",
        "message",
        "ask_started",
        "ask_ended",
        "tool_started",
        "tool_ended",
        "run_ended",
    ]
    good = {
        "run": '"r"',
        "key": '"0"',
        "step": "1",
        "t": "1",
        "message": '{"role":"user","content":[]}',
    }
    for field in fields:
        lines = [HEADER]
        for event in events:
            values = {**good, field: wrong}
            pairs = ",".join(f'"{name}":{value}' for name, value in values.items())
            lines.append(f'{{"event":"{event}",{pairs}}}')
        for story in tell(lines):
            list(story.inside())


async def test_several_sinks_hear_the_same_and_one_that_fails_spares_the_others(
    tmp_path: Path,
) -> None:
    def broken(event: Any) -> None:
        raise RuntimeError("bug")

    heard: list[Any] = []
    with TranscriptFile(tmp_path / "run.jsonl") as sink:
        await helper.run(
            "go", provider=ScriptedProvider("hi"), on_event=all_of(broken, heard.append, sink)
        )
    assert [type(event).__name__ for event in heard] == [
        "RunStarted",
        "AskStarted",
        "AskEnded",
        "RunEnded",
    ]
    assert len(read(tmp_path / "run.jsonl")) == 1
