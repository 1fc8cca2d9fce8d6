"""The offline stand-in as a provider: one request in, one reply out."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
    ToolChoice,
    ToolResultContent,
    ToolUseContent,
)

from agentloop import tool
from agentloop.errors import DefinitionError
from agentloop.meta import NOTICE_KEY, usage_of
from agentloop.output import ANSWER_TOOL
from agentloop.provider import load_provider
from agentloop_providers import OfflineProvider


def request(*messages: SamplingMessage, **options: Any) -> CreateMessageRequestParams:
    return CreateMessageRequestParams(messages=list(messages), **{"max_tokens": 1000, **options})


def user(*content: Any) -> SamplingMessage:
    blocks = [TextContent(text=item) if isinstance(item, str) else item for item in content]
    return SamplingMessage(role="user", content=blocks)


def called(id: str, name: str, arguments: dict[str, Any], result: str) -> list[SamplingMessage]:
    use = ToolUseContent(id=id, name=name, input=arguments)
    answer = ToolResultContent(tool_use_id=id, content=[TextContent(text=result)])
    return [SamplingMessage(role="assistant", content=[use]), user(answer)]


def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    raise NotImplementedError


def delete_user(user_id: int) -> str:
    """Delete a user."""
    raise NotImplementedError


WEATHER = tool(get_weather).offer()


async def sample(asked: CreateMessageRequestParams) -> CreateMessageResultWithTools:
    return await OfflineProvider().sample(asked)


def text_of(reply: CreateMessageResultWithTools) -> str:
    return "".join(block.text for block in reply.content_as_list if block.type == "text")


async def test_the_same_request_gets_the_same_reply() -> None:
    asked = request(user("Weather in Paris and Rome?"), tools=[WEATHER])
    provider = OfflineProvider()
    assert await provider.sample(asked) == await provider.sample(asked) == await sample(asked)


async def test_tool_choice_none_answers_with_what_is_known() -> None:
    history = [user("Weather in Paris?"), *called("a", "get_weather", {"city": "Paris"}, "Sunny.")]
    reply = await sample(request(*history, tools=[WEATHER], tool_choice=ToolChoice(mode="none")))
    assert reply.stop_reason == "endTurn"
    assert "Sunny." in text_of(reply)


async def test_tool_choice_required_calls_a_tool_whatever_is_asked() -> None:
    tools = [tool(delete_user).offer(), WEATHER]
    reply = await sample(
        request(user("Hello!"), tools=tools, tool_choice=ToolChoice(mode="required"))
    )
    (use,) = reply.content_as_list
    assert reply.stop_reason == "toolUse"
    assert use.type == "tool_use"
    assert use.name == "get_weather"
    assert isinstance(use.input["city"], str)


async def test_ids_are_unique_in_a_conversation() -> None:
    first = await sample(request(user("Weather in Paris and Rome?"), tools=[WEATHER]))
    uses = [block for block in first.content_as_list if block.type == "tool_use"]
    results = [ToolResultContent(tool_use_id=use.id, content=[]) for use in uses]
    again = await sample(
        request(
            user("Weather in Paris and Rome?"),
            SamplingMessage(role="assistant", content=list(uses)),
            user(*results),
            SamplingMessage(role="assistant", content=[TextContent(text="No idea.")]),
            user("And in Oslo?"),
            tools=[WEATHER],
        )
    )
    ids = [b.id for b in (*uses, *again.content_as_list) if b.type == "tool_use"]
    assert len(ids) == 3
    assert len(set(ids)) == 3


async def test_an_earlier_order_is_not_carried_out_again() -> None:
    asked = [
        user("Delete user 2"),
        *called("a", "delete_user", {"user_id": 2}, "Deleted."),
        SamplingMessage(role="assistant", content=[TextContent(text="Done.")]),
        user("And user 3?"),
    ]
    reply = await sample(request(*asked, tools=[tool(delete_user).offer()]))
    assert reply.stop_reason == "endTurn"


async def test_what_the_runtime_adds_is_neither_question_nor_evidence() -> None:
    notice = TextContent(text="[The limit of steps is reached.]", _meta={NOTICE_KEY: True})
    result = ToolResultContent(tool_use_id="a", content=[TextContent(text="Sunny."), notice])
    use = ToolUseContent(id="a", name="get_weather", input={"city": "Paris"})
    asked = [user("Weather in Paris?"), SamplingMessage(role="assistant", content=[use])]
    assert "limit" not in text_of(await sample(request(*asked, user(result), tools=[WEATHER])))


async def test_usage_is_an_estimate_that_says_so() -> None:
    usage = usage_of(await sample(request(user("x" * 400))))
    assert usage is not None
    assert usage.estimated == "bytes/4"
    assert usage.input_tokens >= 100
    assert usage.output_tokens > 0


async def test_room_and_stop_sequences_are_kept() -> None:
    cut = await sample(request(user("Tell me about ships."), max_tokens=3))
    assert (cut.stop_reason, len(text_of(cut)) <= 12) == ("maxTokens", True)
    stopped = await sample(request(user("Tell me about ships."), stop_sequences=["ships"]))
    assert stopped.stop_reason == "stopSequence"
    assert "ships" not in text_of(stopped)


async def test_a_picture_without_words_is_no_question() -> None:
    picture = ImageContent(data="aGk=", mime_type="image/png")
    assert "no text" in text_of(await sample(request(user(picture), tools=[WEATHER])))


def test_it_is_found_by_name_and_takes_no_settings() -> None:
    assert load_provider("offline").name == "offline"
    with pytest.raises(DefinitionError, match="takes no settings"):
        load_provider("offline:fast")


# --- whatever comes ----------------------------------------------------------------------------

_NAMES = "path query id user_id city limit start url text prompt sql from a-b"
_KEYWORDS = """
type properties required items enum const anyOf oneOf allOf $ref $defs format minimum maximum
exclusiveMinimum multipleOf minLength maxLength pattern minItems maxItems uniqueItems prefixItems
additionalProperties minProperties default description not
"""
_VALUES = "string integer array object null date uri #/$defs/A # (a+)+$ [a-z]{3} ["

NAMES = st.sampled_from(_NAMES.split())
KEYWORDS = st.sampled_from(_KEYWORDS.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 50),
    st.floats(allow_nan=False),
    st.sampled_from(_VALUES.split()),
    st.text(max_size=5),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYWORDS | NAMES, inner, max_size=4)
    ),
    max_leaves=10,
)
SCHEMAS = st.one_of(
    st.dictionaries(KEYWORDS, JSON, max_size=5),
    st.dictionaries(NAMES, st.dictionaries(KEYWORDS, JSON, max_size=4), max_size=3).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": list(properties)[:2],
            "$defs": {"A": properties},
        }
    ),
)
TOOLS = st.builds(
    lambda name, description, schema: Tool(name=name, description=description, input_schema=schema),
    st.sampled_from(["search", "read", "get_user", "delete_it", ANSWER_TOOL]),
    st.sampled_from([None, "Search for words.", "Read a file.", "x" * 500]),
    SCHEMAS,
)
SNIPPETS = (
    "how many what is the default limit of a.py 12 3+4 Paris 'it' https://x.org user_id 7 (((( "
    "\x00 \ud800 INV-12 2030-01-01 when where at the same time ? ."
)
RESULTS = [
    *(
        "[]",
        "{}",
        "[" * 3000,
        "no results",
        "```",
        '"""',
        '{"id": NaN}',
        "a.py:1: x = 1\na.py:2: y",
    ),
    *('{"id": 1, "path": "b.py"}', '[{"id": 1}, {"id": [2]}]', "  1\tfoo\n  2\tbar", "x " * 9000),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(SNIPPETS.split(" ")), max_size=12).map(" ".join),
    st.sampled_from(RESULTS),
    st.text(max_size=60),
)
PICTURE = ImageContent(data="aGk=", mime_type="image/png")
PARTS = st.one_of(
    TEXTS.map(lambda text: TextContent(text=text)),
    TEXTS.map(
        lambda text: EmbeddedResource(resource=TextResourceContents(uri="file:///y.md", text=text))
    ),
    st.sampled_from([PICTURE, ResourceLink(name="n", uri="file:///x.txt")]),
)


@st.composite
def requests(draw: st.DrawFn) -> CreateMessageRequestParams:
    messages = [user(draw(TEXTS), *draw(st.lists(st.just(PICTURE), max_size=1)))]
    for turn in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["search", "read", "get_user", ANSWER_TOOL]))
        arguments = draw(st.dictionaries(NAMES, TEXTS | st.integers(), max_size=2))
        use = ToolUseContent(id=f"t{turn}", name=name, input=arguments)
        result = ToolResultContent(
            tool_use_id=use.id,
            content=draw(st.lists(PARTS, max_size=2)),
            structured_content=draw(st.none() | JSON),
            is_error=draw(st.none() | st.booleans()),
        )
        messages += [SamplingMessage(role="assistant", content=[use]), user(result)]
    mode = draw(st.sampled_from(["auto", "none", "required"]))
    return request(
        *messages,
        tools=draw(st.lists(TOOLS, max_size=3, unique_by=lambda tool: tool.name)),
        tool_choice=ToolChoice(mode=mode),
    )


@settings(max_examples=150, deadline=None)
@given(requests())
def test_no_request_makes_it_fail(asked: CreateMessageRequestParams) -> None:
    reply = anyio.run(sample, asked)
    assert reply == anyio.run(sample, asked)
    names = [block.name for block in reply.content_as_list if block.type == "tool_use"]
    assert set(names) <= {tool.name for tool in asked.tools or ()}
    assert (reply.stop_reason == "toolUse") == bool(names)
    assert reply.model_dump_json(by_alias=True)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["a", "a_", "/a", "1+", "A ", "'a ", "a@", "a.b", "((", "[1,", "- "]
)
def test_long_and_odd_texts_take_no_long_time(unit: str) -> None:
    text = unit * 20_000
    schema = {"pattern": r"^(\w+\s?)*$", "type": "string"}
    mail = {"type": "string", "format": "email"}
    properties = {"one": schema, "two": mail, "three": {"type": "string", "minLength": 10**9}}
    answer = {"type": "object", "properties": properties, "required": list(properties)}
    tools = [Tool(name=ANSWER_TOOL, input_schema=answer)]
    for messages in ([user(text)], [user("How many?"), *called("a", "search", {}, text)]):
        assert anyio.run(sample, request(*messages, tools=tools)).stop_reason == "toolUse"
        assert anyio.run(sample, request(*messages, tools=[WEATHER])).content_as_list
