"""What leaves for the client is what the SDK itself would write, with each message written once."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ImageContent,
    InputRequiredResult,
    ResourceLink,
    SamplingMessage,
    TextContent,
    Tool,
    ToolChoice,
    ToolResultContent,
    ToolUseContent,
)

from agentloop.mcp.written import Writer, sending
from agentloop.transcript import WIRE, Transcript, remade, written

MESSAGES = [
    SamplingMessage(role="user", content=TextContent(text="just one block")),
    SamplingMessage(role="user", content=[TextContent(text="é", _meta={"a/b": [1, None]})]),
    SamplingMessage(
        role="assistant",
        content=[
            TextContent(text="I look."),
            ImageContent(data="aGk=", mime_type="image/png"),
            AudioContent(data="aGk=", mime_type="audio/wav"),
            ToolUseContent(name="look", id="c1", input={"a": None, "b": {"c": [1.5, True]}}),
            ToolUseContent(name="look", id="c2", input={}),
        ],
        _meta={"dev.agentloop/provider": {"signature": "x"}},
    ),
    SamplingMessage(
        role="user",
        content=[
            ToolResultContent(
                tool_use_id="c1",
                content=[
                    TextContent(text="found"),
                    ResourceLink(name="r", uri="file:///r", type="resource_link"),
                ],
                structured_content={"n": 1},
            ),
            ToolResultContent(tool_use_id="c2", content=[], is_error=True),
        ],
    ),
]
PARAMS = CreateMessageRequestParams(
    messages=MESSAGES,
    system_prompt="Look.",
    max_tokens=10,
    temperature=0.5,
    tools=[Tool(name="look", input_schema={"type": "object"})],
    tool_choice=ToolChoice(mode="none"),
)


@pytest.mark.parametrize("options", [WIRE, {}, {"mode": "json"}, {**WIRE, "exclude": {"method"}}])
def test_a_request_is_written_as_by_the_sdk(options: dict[str, Any]) -> None:
    """However it is asked for, and the second time as the first."""
    request = Writer().request(PARAMS)
    for _ in range(2):
        assert request.model_dump(**options) == CreateMessageRequest(params=PARAMS).model_dump(
            **options
        )


def test_a_result_that_asks_is_written_as_by_the_sdk() -> None:
    """Also with a question to the user among the asks."""
    question = ElicitRequest(
        params=ElicitRequestFormParams(
            message="Sure?", requested_schema={"type": "object", "properties": {}}
        )
    )
    ours = sending({"0:0": Writer().request(PARAMS), "0/1.0?": question}, "state")
    theirs = InputRequiredResult(
        input_requests={"0:0": CreateMessageRequest(params=PARAMS), "0/1.0?": question},
        request_state="state",
    )
    assert ours.model_dump(**WIRE) == theirs.model_dump(**WIRE)
    assert ours.model_dump() == theirs.model_dump()


def test_a_changed_copy_is_written_as_changed() -> None:
    """A host that seals the state does so in a copy of the result."""
    result = sending({"0:0": Writer().request(PARAMS)}, "plain")
    sealed = result.model_copy(update={"request_state": "sealed"})
    assert sealed.model_dump(**WIRE)["requestState"] == "sealed"
    assert "plain" not in str(sealed.model_dump(**WIRE))


def test_each_message_is_written_once() -> None:
    """A message that was written, or read, is not written again; an equal one is another one."""
    writer = Writer()
    read = {"role": "user", "content": [{"type": "text", "text": "as it was read"}]}
    writer.remember([(MESSAGES[1], read)])
    assert writer.message(MESSAGES[1]) is read
    first = writer.message(MESSAGES[2])
    assert writer.message(MESSAGES[2]) is first
    again = writer.message(MESSAGES[2].model_copy())
    assert again == first == written(MESSAGES[2])
    assert again is not first


def test_a_history_is_written_as_it_is_however_it_differs_from_the_last_one() -> None:
    writer = Writer()
    one, two, three, four = MESSAGES
    equal = two.model_copy()
    for history in (
        [one],
        [one, two, three],
        [one, two, three, four],
        [one, four],
        [],
        [one, equal, three],
        [three, one, two],
    ):
        assert writer.history(history) == [written(message) for message in history]
    first = writer.history([one, two])
    assert writer.history([one, equal])[1] is not first[1]
    assert first == [written(one), written(two)]


def test_a_request_that_differs_from_the_last_one_is_written_as_it_is() -> None:
    writer = Writer()
    for changes in (
        {},
        {"messages": MESSAGES[:1]},
        {"tool_choice": ToolChoice(mode="auto")},
        {"tools": None},
        {"tools": [Tool(name="other", input_schema={"type": "object"})], "temperature": None},
        {"system_prompt": None, "metadata": {"a": 1}},
        {},
    ):
        params = PARAMS.model_copy(update=changes)
        assert writer.request(params).model_dump(**WIRE) == CreateMessageRequest(
            params=params
        ).model_dump(**WIRE)


def test_a_request_that_was_changed_where_it_is_is_written_as_it_is_now() -> None:
    """As a function does that loops by itself, and asks with one request again and again."""
    writer = Writer()
    params = PARAMS.model_copy(deep=True, update={"metadata": {"a": 1}, "stop_sequences": ["x"]})
    changes = [
        lambda: params.messages.append(MESSAGES[0]),
        lambda: params.messages.pop(0),
        lambda: (params.tools or []).append(Tool(name="other", input_schema={"type": "object"})),
        lambda: (params.metadata or {}).update(a=2),
        lambda: (params.stop_sequences or []).append("y"),
        lambda: setattr(params.tool_choice, "mode", "auto"),
        lambda: setattr(params, "temperature", 0.25),
    ]
    sent: list[tuple[Any, Any]] = []
    for change in [lambda: None, *changes]:
        change()
        ours = writer.request(params).model_dump(**WIRE)
        theirs = CreateMessageRequest(params=params).model_dump(**WIRE)
        assert ours == theirs
        sent.append((ours, theirs))
    assert all(ours == theirs for ours, theirs in sent), "what was sent stays as it was"


def test_messages_come_back_as_they_were() -> None:
    """What is read is of the SDK's own types, and equal to what was written."""
    read = Transcript.from_json(Transcript(MESSAGES).to_json())
    assert read == Transcript(MESSAGES)
    assert [type(message) for message in read] == [SamplingMessage] * len(MESSAGES)


def test_a_remade_model_knows_which_fields_are_set_and_shares_that_with_none() -> None:
    model = SamplingMessage(role="user", content=[])
    other = remade(model, meta={"k": 1})
    assert other.model_dump(exclude_unset=True, by_alias=True)["_meta"] == {"k": 1}
    assert model.model_fields_set == {"role", "content"}
    remade(model).meta = {"k": 2}
    assert remade(model).model_fields_set == {"role", "content"}


def test_a_remade_model_is_a_copy() -> None:
    """It differs in the values that were given, and leaves the model as it was."""
    model = MESSAGES[0]
    other = remade(model, role="assistant")
    assert other == model.model_copy(update={"role": "assistant"})
    assert (model.role, other.role) == ("user", "assistant")
    assert other.model_dump(**WIRE) == {**written(model), "role": "assistant"}
