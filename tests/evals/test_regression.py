"""Recorded runs, run again without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp_types import TextContent

from agentloop import Agent, Limits
from agentloop.errors import DefinitionError, OverloadedError
from agentloop.guard import no_real_requests
from agentloop.testing.regression import Recording, TranscriptChanged, record, recordings
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use


def clerk(fee: int = 5, instructions: str = "Sell tickets.", **more: Any) -> Agent[str]:
    def price(kind: str) -> str:
        """Look up what a ticket costs."""
        return f"{kind}: {fee}"

    return Agent("clerk", instructions, tools=[price], **more)


async def recorded(folder: Path, *, agent: Agent[Any] | None = None) -> Recording:
    model = ScriptedProvider(use("price", kind="day"), "A day costs 5.")
    await record(agent or clerk(), "How much?", provider=model, file=folder / "day.json")
    (recording,) = recordings(folder)
    return recording


async def test_an_agent_that_did_not_change_does_what_was_recorded(tmp_path: Path) -> None:
    recording = await recorded(tmp_path)
    with no_real_requests():
        result = await recording.check(clerk())
    assert result.output == "A day costs 5."
    assert str(recording) == "day"


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (lambda: clerk(fee=6), "recorded 'day: 5', asked 'day: 6'"),
        (lambda: clerk(instructions="Give tickets away."), "Give tickets away."),
        (lambda: clerk(temperature=0.5), "temperature"),
    ],
)
async def test_what_changed_is_said(
    tmp_path: Path, agent: Callable[[], Agent[Any]], said: str
) -> None:
    recording = await recorded(tmp_path)
    with pytest.raises(TranscriptChanged, match="day: recording: ") as caught:
        await recording.check(agent())
    assert said in str(caught.value)


async def test_an_end_that_changed_is_said_though_every_ask_was_the_same(tmp_path: Path) -> None:
    recording = await recorded(tmp_path)
    with pytest.raises(TranscriptChanged, match="day changed:") as caught:
        await recording.check(clerk(limits=Limits(tokens=1)))
    lines = str(caught.value).splitlines()
    assert "  stop: recorded 'done', now 'tokens'" in lines
    assert lines[-1] == "  1 of the recorded answers were never asked for"


async def test_an_answer_that_was_written_over_in_the_transcript_is_seen(tmp_path: Path) -> None:
    await recorded(tmp_path)
    file = tmp_path / "day.json"
    file.write_text(file.read_text().replace("A day costs 5.", "A day costs 7."))
    with pytest.raises(TranscriptChanged) as caught:
        await recordings(tmp_path)[0].check(clerk())
    assert "output: recorded 'A day costs 7.', now 'A day costs 5.'" in str(caught.value)


async def test_errors_of_the_model_and_agents_inside_of_agents_are_recorded_too(
    tmp_path: Path,
) -> None:
    def boss() -> Agent[str]:
        return Agent("boss", "Ask the clerk.", tools=[clerk().as_tool()])

    model = ScriptedProvider(
        use("clerk", prompt="A day?"), use("price", kind="day"), "5", OverloadedError("busy")
    )
    await record(boss(), "How much?", provider=model, file=tmp_path / "boss.json")
    result = await recordings(tmp_path)[0].check(boss())
    assert result.error == "overloaded: busy"


async def test_a_prompt_of_several_blocks_is_asked_again_as_it_was(tmp_path: Path) -> None:
    prompt = [TextContent(text="one"), TextContent(text="two")]
    await record(Agent("a"), prompt, provider=ScriptedProvider("12"), file=tmp_path / "x.json")
    recording = recordings(tmp_path)[0]
    assert recording.prompt == prompt
    await recording.check(Agent("a"))


async def test_the_transcript_is_for_people_and_the_same_each_time(tmp_path: Path) -> None:
    await recorded(tmp_path / "one")
    await recorded(tmp_path / "two")
    texts = [(tmp_path / name / "day.json").read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]
    data = json.loads(texts[0])
    assert (data["stop"], data["output"], len(data["messages"])) == ("done", "A day costs 5.", 4)


def test_a_test_of_no_recordings_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="no recordings"):
        recordings(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"prompt": 3}', '{"prompt": "x", "stop": "done"}']
)
def test_what_is_no_recording_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DefinitionError, match="no recorded transcript"):
        recordings(tmp_path)
