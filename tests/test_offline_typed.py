"""Typed answers of the offline stand-in: made to fit a schema, and mended where they do not."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, Union

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import CreateMessageRequestParams, SamplingMessage, TextContent
from pydantic import BaseModel, Field, create_model, field_validator

from agentloop import Agent, RunResult, Stop
from agentloop.output import Output
from agentloop_providers import OfflineProvider

SOURCE = """\
src/pool.py:11: class Pool:
src/pool.py:12:     workers: int = 12
src/pool.py:13:     \"\"\"How many workers the pool starts.\"\"\"
src/main.py:7: start(pool.workers)"""


def search(text: str) -> str:
    """Search the files for some words."""
    return SOURCE


def get_weather(city: str) -> dict[str, Any]:
    """Get the weather for a city."""
    return {"city": city, "temperature": {"Paris": 21.5, "Oslo": 3}[city], "sky": "clear"}


async def ask(question: str, output: Any, *tools: Callable[..., Any]) -> RunResult[Any]:
    agent: Agent[Any] = Agent("helper", "You help.", output=output, tools=tools)
    return await agent.run(question, provider=OfflineProvider())


class Quote(BaseModel):
    path: str
    line: int = Field(ge=1)
    text: str


class Finding(BaseModel):
    count: int
    setting: str
    where: str
    quotes: list[Quote] = Field(min_length=1, max_length=2)
    confidence: float = Field(ge=0, le=1)
    note: str | None = None


QUESTION = "How many workers does the pool start?"


async def test_fields_are_filled_from_what_was_found() -> None:
    found = (await ask(QUESTION, Finding, search)).output
    assert (found.count, found.setting) == (12, "workers")
    assert found.where.startswith("src/pool.py:12")
    assert found.quotes[0] == Quote(path="src/pool.py", line=12, text="workers: int = 12")
    assert found.note is None


@pytest.mark.parametrize(
    ("output", "wanted"),
    [(int, 12), (bool, True), (Literal["src/main.py", "src/pool.py"], "src/pool.py")],
)
async def test_plain_types_are_answered_too(output: Any, wanted: Any) -> None:
    assert (await ask(QUESTION, output, search)).output == wanted


async def test_members_of_results_go_where_they_belong() -> None:
    class Weather(BaseModel):
        city: str
        temperature: float
        sky: Literal["cloudy", "clear"]

    result = await ask("How is the weather in Paris and Oslo?", list[Weather], get_weather)
    assert [(w.city, w.temperature, w.sky) for w in result.output] == [
        ("Paris", 21.5, "clear"),
        ("Oslo", 3, "clear"),
    ]


async def test_without_evidence_the_prompt_is_used() -> None:
    class Plan(BaseModel):
        parts: list[str] = Field(min_length=2, max_length=4)

    plan = (await ask("Plan a report on solar energy in Spain and Portugal.", Plan)).output
    assert plan.parts == ["solar energy", "Spain", "Portugal"]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    title: str
    children: list[Node] = []


class Odd(BaseModel):
    code: str = Field(pattern=r"^[A-Z]{3}-\d{4}$")
    day: datetime.date
    at: datetime.datetime
    id: uuid.UUID
    colour: Colour
    pair: tuple[int, str]
    maybe: int | None
    either: int | str | Node
    tags: Annotated[set[str], Field(min_length=2, max_length=4)]
    number: int = Field(gt=10, lt=20, multiple_of=3)
    share: float = Field(gt=0, lt=0.5)
    long: str = Field(min_length=50, max_length=60)
    table: dict[str, int]
    tree: Node


@pytest.mark.parametrize("question", ["", "Is it blue?", QUESTION])
async def test_an_odd_schema_is_met_at_once(question: str) -> None:
    result = await ask(question, Odd)
    assert result.stop is Stop.DONE
    assert result.steps == 1
    assert result.output.colour is (Colour.BLUE if "blue" in question else Colour.RED)


class Picky(BaseModel):
    """What its schema does not say, its errors do."""

    path: str
    count: int
    kind: str

    @field_validator("path")
    @classmethod
    def _main(cls, path: str) -> str:
        if not path.endswith("main.py"):
            raise ValueError("it must be the file main.py")
        return path

    @field_validator("count")
    @classmethod
    def _few(cls, count: int) -> int:
        if count > 10:
            raise ValueError("it must be at most 10")
        return count

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in ("good", "bad"):
            raise ValueError("it must be one of 'good' and 'bad'")
        return kind


async def test_what_is_rejected_is_mended() -> None:
    result = await ask(QUESTION, Picky, search)
    assert result.stop is Stop.DONE
    assert result.output == Picky(path="src/main.py", count=10, kind="good")


# --- any type ----------------------------------------------------------------------------------


LEAVES = st.one_of(
    st.tuples(st.integers(-99, 99), st.integers(0, 50)).map(
        lambda t: Annotated[int, Field(ge=t[0], le=t[0] + t[1])]
    ),
    st.tuples(st.integers(-99, 99), st.integers(2, 50)).map(
        lambda t: Annotated[int, Field(gt=t[0], lt=t[0] + t[1])]
    ),
    st.tuples(st.floats(-99, 99), st.floats(0.1, 50)).map(
        lambda t: Annotated[float, Field(gt=t[0], lt=t[0] + t[1])]
    ),
    st.integers(1, 7).map(lambda n: Annotated[int, Field(multiple_of=n)]),
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(
        lambda t: Annotated[str, Field(min_length=t[0], max_length=t[0] + t[1])]
    ),
    st.sampled_from([r"^[a-z]{3}$", r"^\d+-\d+$", r"[A-Z]", r"^(foo|bar)\d?$", r"^v\d+\.\d+$"]).map(
        lambda pattern: Annotated[str, Field(pattern=pattern)]
    ),
    st.sampled_from([str, int, float, bool, bytes, Any, None, dict, list, dict[str, int]]),
    st.sampled_from([datetime.date, datetime.time, datetime.timedelta, uuid.UUID, Literal["a", 2]]),
)
FIELDS = "count path line answer text tags score where name items source"
NAMES = st.sampled_from(FIELDS.split())
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda t: list[t]),
        st.tuples(inner, st.integers(0, 4), st.integers(0, 3)).map(
            lambda t: Annotated[list[t[0]], Field(min_length=t[1], max_length=t[1] + t[2])]
        ),
        inner.map(lambda t: Optional[t]),  # noqa: UP045
        st.tuples(inner, inner).map(lambda t: Union[t]),  # noqa: UP007
        st.tuples(inner, inner).map(lambda t: tuple[t]),
        st.dictionaries(NAMES, inner, min_size=1, max_size=4).map(
            lambda fields: create_model("Made", **{name: (t, ...) for name, t in fields.items()})
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(TYPES, st.sampled_from(["", "How many are in a.py?", "Count 3 apples and 'pears'"]))
def test_any_type_is_answered(type_: Any, question: str) -> None:
    output = Output(type_)
    asked = CreateMessageRequestParams(
        messages=[SamplingMessage(role="user", content=TextContent(text=question))],
        max_tokens=1000,
        tools=[output.tool],
    )
    (use,) = anyio.run(OfflineProvider().sample, asked).content_as_list
    assert use.type == "tool_use"
    output.check(use.input)
