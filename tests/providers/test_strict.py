"""Typed answers that the API itself holds to their schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from mcp_types import TextContent, ToolChoice
from pydantic import BaseModel, Field

from agentloop import Agent, Limits, Stop
from agentloop.errors import AuthenticationError, BadRequestError
from agentloop.output import ANSWER_TOOL, Output
from agentloop.testing.asks import ask, blocks_of, kept, offer, results, user, uses_of
from agentloop.testing.backend import Backend, Call, Refuses, Says, Sends
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.held_schema import MESSAGES, OPENAI
from agentloop.testing.messages_api import MessagesBackend
from agentloop.testing.responses_api import ResponsesBackend
from agentloop.testing.typed_contract import ANSWERS, Tree, Verdict
from agentloop_providers import AnthropicProvider, OpenAIChatProvider, OpenAIProvider
from agentloop_providers._strict import strict_schema

Connect = Callable[..., Any]

EACH: list[Any] = [
    pytest.param(AnthropicProvider, MessagesBackend, id="anthropic"),
    pytest.param(OpenAIProvider, ResponsesBackend, id="openai"),
    pytest.param(OpenAIChatProvider, ChatBackend, id="openai-chat"),
]
each = pytest.mark.parametrize(("kind", "backend_class"), EACH)

REQUIRED = ToolChoice(mode="required")
ANSWER = {"city": "Oslo", "score": 9, "note": None}
ANSWERED = Says(calls=(Call(ANSWER_TOOL, ANSWER),))
HELD = {"number", "list", "fields", "one of two"}
"""The answers of the contract whose schema is in the subset."""

only_verdict = [Output(Verdict).tool]


# --- which schemas -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANSWERS)
def test_a_schema_is_in_the_subset_of_every_api_or_left_as_it_is(name: str) -> None:
    schema = Output(ANSWERS[name][0]).schema
    before = json.dumps(schema)
    bare, limited = (strict_schema(schema, limits=limits) for limits in (False, True))
    assert (bare is not None, limited is not None) == (name in HELD, name in HELD)
    assert json.dumps(schema) == before
    if bare is not None and limited is not None:
        assert MESSAGES.problem(bare) is None
        assert OPENAI.problem(limited) is None


@pytest.mark.parametrize("limits", [False, True])
def test_what_an_api_does_not_hold_is_told_in_the_description(limits: bool) -> None:
    strict = strict_schema(Output(Verdict).schema, limits=limits)
    told = {"description": "(maximum: 10, minimum: 0)"}
    assert strict == {
        "type": "object",
        "description": "What is thought of a city.",
        "properties": {
            "city": {"type": "string"},
            "score": {"type": "integer", **({"maximum": 10, "minimum": 0} if limits else told)},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["city", "score", "note"],
        "additionalProperties": False,
    }


class Point(BaseModel):
    """A point."""

    x: int


class Line(BaseModel):
    begin: Point
    end: Point = Field(description="where it ends")


def test_a_reference_with_words_of_its_own_becomes_what_it_refers_to() -> None:
    """Nothing may stand beside a reference."""
    strict = strict_schema(Output(Line).schema, limits=False)
    assert strict is not None
    begin, end = strict["properties"].values()
    assert begin == {"$ref": "#/$defs/Point"}
    assert end == {**strict["$defs"]["Point"], "description": "where it ends"}


@pytest.mark.parametrize(
    "part",
    [
        True,
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": [], "required": 3},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
        {"type": "strange"},
        {"type": []},
        {"type": "string", "not": {"const": "a"}},
        {"allOf": [{"type": "string"}]},
        {"anyOf": {"type": "string"}},
        {"enum": []},
        {"enum": [{"a": 1}]},
        {"$ref": "#/$defs/Nowhere"},
        {"$ref": "https://example.com/schema"},
    ],
)
def test_a_schema_with_a_part_that_has_no_place_is_left_as_it_is(part: Any) -> None:
    root = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    assert strict_schema(root, limits=True) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYWORDS = [
    *("type", "properties", "required", "items", "anyOf", "oneOf", "allOf", "enum", "const"),
    *("$ref", "$defs", "additionalProperties", "description", "default", "format", "minimum"),
    *("title", "not"),
]
SCHEMA = st.recursive(
    st.sampled_from([{"type": "string", "format": "uri"}, {"const": 1}, {"$ref": "#/$defs/A"}]),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 2}, inner),
        st.builds(lambda kinds: {"oneOf": kinds, "title": "T"}, st.lists(inner, min_size=1)),
        st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": list(fields)},
            st.dictionaries(st.text(max_size=3), inner, max_size=4),
        ),
        st.builds(lambda some, one: {**some, "default": 1, "description": one}, inner, st.text()),
        st.builds(
            lambda some, key, value: {**some, key: value}, inner, st.sampled_from(KEYWORDS), JSON
        ),
    ),
    max_leaves=8,
)
WHAT_CLIENTS_SEND = SCHEMA | st.dictionaries(st.sampled_from(KEYWORDS), JSON | SCHEMA)


@settings(max_examples=300)
@given(WHAT_CLIENTS_SEND, st.dictionaries(st.just("A"), WHAT_CLIENTS_SEND))
def test_whatever_is_sent_as_a_schema_is_in_the_subset_or_left_as_it_is(
    part: Any, definitions: Any
) -> None:
    root = {"type": "object", "properties": {"a": part}, "required": ["a"], "$defs": definitions}
    bare, limited = (strict_schema(root, limits=limits) for limits in (False, True))
    event("left as it is" if bare is None else "in the subset")
    if bare is not None and limited is not None:
        assert MESSAGES.problem(bare) is None
        assert OPENAI.problem(limited) is None


def test_a_schema_of_any_depth() -> None:
    deep: Any = {"type": "string"}
    for _ in range(50_000):
        deep = {"type": "array", "items": deep}
    root = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    assert strict_schema(root, limits=True) is None


# --- what is sent ------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("name", ANSWERS)
async def test_no_api_refuses_a_schema_that_it_is_to_hold(
    connect: Connect, kind: Any, backend_class: Any, name: str
) -> None:
    output, answer = ANSWERS[name]
    backend: Backend = backend_class()
    backend.says(Says(calls=(Call(ANSWER_TOOL, answer),)))
    provider, tool = connect(kind, backend), Output(output).tool
    await provider.sample(ask(user("go"), tools=[*offer("a"), tool]))
    await provider.sample(ask(user("go"), tools=[tool], tool_choice=REQUIRED))
    assert backend.problems == []
    assert [len(backend.held(body)) for body in backend.requests] == [name in HELD] * 2
    assert "oneOf" not in json.dumps(backend.held(backend.requests[0]))


@each
async def test_it_can_be_switched_off(connect: Connect, kind: Any, backend_class: Any) -> None:
    backend: Backend = backend_class()
    backend.says(ANSWERED)
    provider = connect(kind, backend, strict=False)
    reply = await provider.sample(ask(user("go"), tools=only_verdict, tool_choice=REQUIRED))
    assert [use.input for use in uses_of(reply)] == [ANSWER]
    assert backend.held(backend.requests[0]) == []


@each
async def test_what_one_schema_is_refused_for_another_is_not(
    connect: Connect, kind: Any, backend_class: Any
) -> None:
    class Picky(backend_class):
        def schema_problem(self, schema: Any) -> str | None:
            return "the compiled grammar is too large" if "score" in str(schema) else None

    backend: Backend = Picky()
    backend.says(ANSWERED)
    provider = connect(kind, backend)
    for tools in (only_verdict, only_verdict, [Output(int).tool]):
        await provider.sample(ask(user("go"), tools=tools))
    assert len(backend.problems) == 1
    assert [len(backend.held(body)) for body in backend.requests] == [1, 0, 0, 1]


@each
async def test_a_request_that_is_bad_in_another_way_is_an_error(
    connect: Connect, kind: Any, backend_class: Any
) -> None:
    backend: Backend = backend_class()
    backend.says(Refuses(400, "bad"), Refuses(400, "still bad"), ANSWERED)
    provider = connect(kind, backend)
    with pytest.raises(BadRequestError, match="still bad"):
        await provider.sample(ask(user("go"), tools=only_verdict))
    await provider.sample(ask(user("go"), tools=only_verdict))
    assert [len(backend.held(body)) for body in backend.requests] == [1, 0, 1]


@each
async def test_other_errors_are_not_taken_for_a_refused_schema(
    connect: Connect, kind: Any, backend_class: Any
) -> None:
    backend: Backend = backend_class()
    backend.says(Refuses(401, "who are you?"))
    with pytest.raises(AuthenticationError):
        await connect(kind, backend).sample(ask(user("go"), tools=only_verdict))
    backend.clear()
    policy = {"error": {"code": "content_policy_violation", "message": "no"}}
    backend.says(Sends(status=400, body=policy))
    reply = await connect(kind, backend).sample(ask(user("go"), tools=only_verdict))
    assert reply.stop_reason == "refusal"
    assert len(backend.requests) == 2


# --- the Messages API: models that think -------------------------------------------------------


async def test_a_model_that_thinks_is_held_to_the_answer_in_words(connect: Connect) -> None:
    """No tool may be forced on it, and without force it may talk instead."""
    backend = MessagesBackend()
    thinks = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}
    provider = connect(AnthropicProvider, backend, options=thinks)
    backend.says(
        Says(thinking="hm", text="It is Oslo."),
        Says(thinking="so", calls=(Call(ANSWER_TOOL, {**ANSWER, "score": 99}),)),
        Says(thinking="lower", calls=(Call(ANSWER_TOOL, ANSWER),)),
    )
    result = await Agent("judge", output=Verdict).run("Which city?", provider=provider)
    assert (result.stop, result.steps, backend.problems) == (Stop.DONE, 3, [])
    assert result.output == Verdict(city="Oslo", score=9)
    first, second, third = backend.requests
    assert "format" not in first["output_config"]
    assert second["output_config"]["format"]["type"] == "json_schema"
    assert (second["output_config"]["effort"], second["tool_choice"]) == ("low", {"type": "none"})
    assert first["tools"] == second["tools"] == third["tools"]  # prompt caches begin with them
    wrong = third["messages"][-2]["content"]
    assert [block["type"] for block in wrong] == ["thinking", "redacted_thinking", "tool_use"]
    assert wrong[:2] == backend.spoken[1][:2]


async def test_a_model_that_thinks_unasked_is_held_too(connect: Connect) -> None:
    class Thinks(MessagesBackend):
        def problem(self, path: str, body: Any) -> str | None:
            if body.get("tool_choice", {}).get("type") == "any":
                return "Thinking may not be enabled when tool_choice forces tool use."
            return super().problem(path, body)

    backend = Thinks()
    backend.says(ANSWERED)
    provider = connect(AnthropicProvider, backend)
    for _ in range(2):
        reply = await provider.sample(ask(user("go"), tools=only_verdict, tool_choice=REQUIRED))
        assert [use.input for use in uses_of(reply)] == [ANSWER]
        assert reply.stop_reason == "toolUse"
    assert len(backend.problems) == 1
    assert ["output_config" in body for body in backend.requests] == [False, True, True]


# --- Chat Completions: the answer as a response format -----------------------------------------


async def test_an_answer_alone_is_a_response_format(connect: Connect) -> None:
    backend = ChatBackend()
    backend.says(
        Says(thinking="so", calls=(Call(ANSWER_TOOL, '{"city": "Oslo",  "score": 99}'),)),
        Says(text="done"),
    )
    chat = connect(OpenAIChatProvider, backend)
    request = ask(user("go"), tools=only_verdict, tool_choice=REQUIRED, system_prompt="Judge.")
    first = await chat.sample(request)
    sent = backend.requests[0]
    assert "tools" not in sent
    assert "tool_choice" not in sent
    assert sent["response_format"]["json_schema"]["name"] == ANSWER_TOOL
    assert sent["messages"][0]["content"].startswith("Judge.\n\n[Answer with one JSON object")
    assert '"score":{"type":"integer"' in sent["messages"][0]["content"]
    again = ask(user("go"), kept(first), results(first, TextContent(text="no")), tools=only_verdict)
    await chat.sample(again)
    said = backend.requests[1]["messages"][1]
    assert said["reasoning_content"] == "so"
    [call] = said["tool_calls"]
    assert call["function"]["arguments"] == '{"city": "Oslo",  "score": 99}'
    assert "content" not in said or said["content"] is None


@pytest.mark.parametrize("text", ["Fine:\n```json\n{}\n```", "{}"])
async def test_a_server_that_does_not_know_response_formats_is_told_in_words(
    connect: Connect, text: str
) -> None:
    """It says nothing of it, and its model has only the system message to go by."""
    backend = ChatBackend()
    said = text.replace("{}", json.dumps(ANSWER))
    backend.says(Says(calls=(Call("look"),)), Says(text=said))
    agent = Agent("judge", tools=[look], output=Verdict, limits=Limits(steps=2))
    result = await agent.run("Which city?", provider=connect(OpenAIChatProvider, backend))
    assert (result.stop, result.output) == (Stop.STEPS, Verdict(city="Oslo", score=9))


def look() -> str:
    """Look around."""
    return "fjords"


async def test_a_reply_that_was_cut_off_is_no_answer(connect: Connect) -> None:
    backend = ChatBackend()
    backend.says(Says(text='{"city": "Oslo", "sc', stop="maxTokens"))
    chat = connect(OpenAIChatProvider, backend)
    reply = await chat.sample(ask(user("go"), tools=only_verdict, tool_choice=REQUIRED))
    assert (reply.stop_reason, [b.type for b in blocks_of(reply)]) == ("maxTokens", ["text"])


def test_a_type_that_holds_itself_is_offered_as_it_always_was() -> None:
    assert strict_schema(Output(Tree).schema, limits=True) is None
