"""The messages of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from mcp_types import SamplingMessage, TextContent, ToolResultContent, ToolUseContent
from pydantic import ValidationError

from agentloop.transcript import Transcript


def says(text: str, role: str = "user") -> SamplingMessage:
    return SamplingMessage(role=role, content=[TextContent(text=text)])  # type: ignore[arg-type]


def uses(*ids: str, role: str = "assistant") -> SamplingMessage:
    content = [ToolUseContent(name="t", id=id, input={}) for id in ids]
    return SamplingMessage(role=role, content=content)  # type: ignore[arg-type]


def results(*ids: str, role: str = "user", more: bool = False) -> SamplingMessage:
    content: list[ToolResultContent | TextContent] = [
        ToolResultContent(tool_use_id=id, content=[]) for id in ids
    ]
    if more:
        content.append(TextContent(text="more"))
    return SamplingMessage(role=role, content=content)  # type: ignore[arg-type]


def test_a_transcript_is_a_sequence_of_messages() -> None:
    one, two = says("one"), says("two")
    transcript = Transcript([one, two])
    assert isinstance(transcript, Sequence)
    assert list(transcript) == [one, two]
    assert (transcript[0], transcript[-1], transcript[1:]) == (one, two, [two])
    assert (len(transcript), one in transcript, list(reversed(transcript))) == (2, True, [two, one])
    with pytest.raises(IndexError):
        transcript[2]
    with pytest.raises(IndexError):
        transcript[-3]


def test_append_leaves_the_transcript_it_grows_from_as_it_was() -> None:
    before = Transcript([says("a")])
    after = before.append(says("b"))
    assert len(before) == 1
    assert before[:] == [says("a")]
    assert before[-1] == says("a")
    assert after == Transcript([says("a"), says("b")])
    assert before.to_list() == [says("a")]


def test_two_futures_of_one_transcript_do_not_mix() -> None:
    before = Transcript([says("a")])
    left, right = before.append(says("left")), before.append(says("right"))
    left = left.append(says("left again"))
    assert [m.content_as_list[0].text for m in left] == ["a", "left", "left again"]  # type: ignore[union-attr]
    assert [m.content_as_list[0].text for m in right] == ["a", "right"]  # type: ignore[union-attr]


def test_replace_last_changes_no_other_transcript() -> None:
    before = Transcript([says("a")]).append(says("b"))
    after = before.replace_last(says("c"))
    assert before[-1] == says("b")
    assert after == Transcript([says("a"), says("c")])
    assert before.append(says("d"))[1] == says("b")


def test_a_list_of_the_messages_is_the_callers_own() -> None:
    transcript = Transcript([says("a")])
    transcript.to_list().append(says("b"))
    assert len(transcript) == 1


def test_transcripts_are_equal_by_their_messages_and_have_no_hash() -> None:
    assert Transcript([says("a")]) == Transcript([says("a")])
    assert Transcript([says("a")]) != Transcript([says("b")])
    assert Transcript([says("a")]) != Transcript([says("a"), says("a")])
    assert Transcript([says("a")]) != [says("a")]
    with pytest.raises(TypeError):
        hash(Transcript())


def test_appending_costs_the_same_however_long_the_transcript_is() -> None:
    def seconds_for_a_thousand_more(transcript: Transcript) -> float:
        message = says("x")
        began = time.perf_counter()
        for _ in range(1000):
            transcript = transcript.append(message)
        return time.perf_counter() - began

    short = min(seconds_for_a_thousand_more(Transcript()) for _ in range(5))
    long = min(seconds_for_a_thousand_more(Transcript([says("y")] * 100_000)) for _ in range(5))
    assert long < short * 10  # a copy for each append would take a thousand times as long


def test_a_transcript_comes_back_from_the_protocols_json() -> None:
    meta = {"dev.agentloop/provider": {"signature": "s", "nothing": None}}
    transcript = Transcript(
        [
            says("go"),
            SamplingMessage(
                role="assistant",
                content=[
                    TextContent(text="so", _meta=meta),
                    ToolUseContent(name="t", id="1", input={"a": None}, _meta=meta),
                ],
                _meta=meta,
            ),
            results("1"),
        ]
    )
    data = transcript.to_json()
    assert data[1]["content"][1] == {
        "type": "tool_use",
        "name": "t",
        "id": "1",
        "input": {"a": None},
        "_meta": meta,
    }
    assert Transcript.from_json(data) == transcript
    with pytest.raises(ValidationError):
        Transcript.from_json([{"role": "assistant"}])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [says("a")],
        [says("a"), says("b", "assistant"), says("c"), says("d")],
        [says("a"), uses("1", "2"), results("1", "2"), uses("1"), results("1")],
        [uses("1", "2"), results("2", "1")],
    ],
)
def test_a_history_is_balanced(messages: list[SamplingMessage]) -> None:
    assert Transcript(messages).imbalance() is None


@pytest.mark.parametrize(
    "messages",
    [
        [results("1")],
        [uses("1"), says("a")],
        [uses("1"), results("2")],
        [uses("1"), results("1", "1")],
        [uses("1", "2"), results("1"), results("2")],
        [uses("1", "1"), results("1", "1")],
        [uses("1"), results("1", more=True)],
        [uses("1"), results("1", role="assistant")],
        [uses("1", role="user"), results("1")],
        [uses("1")],
    ],
)
def test_a_history_is_not_balanced(messages: list[SamplingMessage]) -> None:
    assert Transcript(messages).imbalance() is not None


def test_open_tool_uses_are_balanced_only_where_they_may_be_open() -> None:
    transcript = Transcript([says("a"), uses("1")])
    assert transcript.imbalance(open=True) is None
    assert transcript.imbalance() == "the last message has tool uses without results"
