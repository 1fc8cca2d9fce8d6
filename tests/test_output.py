"""Typed answers, alike on every carrier."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from agentloop import Agent, Limits, Stop
from agentloop.errors import DefinitionError, RunStopped
from agentloop.output import ANSWER_TOOL, Output, OutputInvalid
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use


class Leaf(BaseModel):
    label: str
    children: list[Leaf] = []


class City(BaseModel):
    name: str
    founded: date
    people: Annotated[int, Field(ge=0)] = 0

    @field_validator("name")
    @classmethod
    def has_a_name(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("a city has a name")
        return name


class Aliased(BaseModel):
    kind: str = Field(alias="type")


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("type_", "arguments", "answer", "value"),
    [
        (
            City,
            {"name": "Rome", "founded": "0753-04-21"},
            {"name": "Rome", "founded": "0753-04-21", "people": 0},
            City(name="Rome", founded=date(753, 4, 21)),
        ),
        (Point, {"x": 1, "y": "2"}, {"x": 1, "y": 2}, Point(1, 2)),
        (Aliased, {"type": "a"}, {"type": "a"}, Aliased(type="a")),
        (dict[str, int], {"a": 1}, {"a": 1}, {"a": 1}),
        (int, {"result": "7"}, 7, 7),
        (list[date], {"result": ["2026-01-02"]}, ["2026-01-02"], [date(2026, 1, 2)]),
        (Literal["yes", "no"], {"result": "yes"}, "yes", "yes"),
        (int | None, {"result": None}, None, None),
        (
            Leaf,
            {"label": "a", "children": [{"label": "b"}]},
            {"label": "a", "children": [{"label": "b", "children": []}]},
            Leaf(label="a", children=[Leaf(label="b")]),
        ),
        (City | Point, {"result": {"x": 1, "y": 2}}, {"x": 1, "y": 2}, Point(1, 2)),
    ],
)
def test_an_answer_is_checked_kept_as_json_and_given_as_its_type(
    type_: Any, arguments: dict[str, Any], answer: Any, value: Any
) -> None:
    output = Output(type_)
    assert output.check(arguments) == answer
    assert json.loads(json.dumps(answer)) == answer
    assert output.revive(answer) == value


@pytest.mark.parametrize("type_", [City, Leaf, int, list[City], City | Point, str | None])
def test_the_answer_tool_has_a_schema_of_an_object(type_: Any) -> None:
    tool = Output(type_).tool
    assert tool.name == ANSWER_TOOL
    assert tool.input_schema["type"] == "object"
    assert "$ref" not in tool.input_schema


def test_definitions_stay_where_references_find_them() -> None:
    schema = Output(list[Leaf]).schema
    assert schema["properties"]["result"]["items"] == {"$ref": "#/$defs/Leaf"}
    assert "Leaf" in schema["$defs"]


@pytest.mark.parametrize("type_", [object(), type("Odd", (), {})])
def test_a_type_without_a_schema_is_refused_when_the_agent_is_made(type_: Any) -> None:
    with pytest.raises(DefinitionError, match="no JSON schema"):
        Agent("agent", output=type_)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "Rome"}, "founded: Field required"),
        ({"name": " ", "founded": "2026-01-01"}, "a city has a name"),
        ({"name": "R", "founded": "2026-01-01", "people": -1}, "people: "),
        ({}, "name: Field required; founded: Field required"),
    ],
)
def test_the_model_is_told_what_is_wrong(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(OutputInvalid, match=told):
        Output(City).check(arguments)


def test_a_wrapped_answer_without_its_wrapper_is_told_where_to_put_it() -> None:
    with pytest.raises(OutputInvalid, match=r'\{"result": \.\.\.\}'):
        Output(int).check({"n": 1})


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1, "y": 2}',
        ' \n{"x": 1, "y": 2}\n',
        'So:\n```json\n{"x": 1, "y": 2}\n```\nThat is it.',
        'No:\n```\nnot this\n```\nbut:\n```json\n{"x": 1, "y": 2}\n```',
    ],
)
def test_an_answer_is_found_in_words(text: str) -> None:
    assert Output(Point).find(text) == {"x": 1, "y": 2}


@pytest.mark.parametrize("text", ["", "x is 1", "[1, 2]", "5", '{"x": 1}', "{" * 50_000, "null"])
def test_no_answer_is_found_where_there_is_none(text: str) -> None:
    with pytest.raises(OutputInvalid, match=ANSWER_TOOL):
        Output(Point).find(text)


@pytest.mark.parametrize(("text", "answer"), [("7", 7), ('{"result": 7}', 7), ('"7"', 7)])
def test_a_plain_answer_is_found_with_and_without_its_wrapper(text: str, answer: int) -> None:
    assert Output(int).find(text) == answer


def test_an_answer_that_cannot_be_read_back_does_not_fit() -> None:
    class OneWay(BaseModel):
        seen: int
        hidden: int = Field(exclude=True)

    with pytest.raises(OutputInvalid, match="no JSON form"):
        Output(OneWay).check({"seen": 1, "hidden": 2})
    with pytest.raises(OutputInvalid, match="no JSON form"):
        Output(float).check({"result": "nan"})


async def test_an_agent_gives_an_instance_of_its_output_type() -> None:
    agent = Agent("agent", output=City)
    provider = ScriptedProvider(
        "It is Rome.",
        [use(ANSWER_TOOL)],
        [use(ANSWER_TOOL, founded="0753-04-21", **{"people": 1})],
        [use(ANSWER_TOOL).model_copy(update={"input": {"name": "Rome", "founded": "0753-04-21"}})],
    )
    result = await agent.run("Which city?", provider=provider)
    assert result.stop is Stop.FAILED, "two retries, and this would be the third"
    provider = ScriptedProvider(
        "It is Rome.",
        [use(ANSWER_TOOL)],
        [use(ANSWER_TOOL).model_copy(update={"input": {"name": "Rome", "founded": "0753-04-21"}})],
    )
    result = await agent.run("Which city?", provider=provider)
    assert result.stop is Stop.DONE
    assert result.output == City(name="Rome", founded=date(753, 4, 21))
    assert result.to_json()["output"] == {"name": "Rome", "founded": "0753-04-21", "people": 0}


async def test_a_run_without_an_answer_keeps_everything_but_has_no_output() -> None:
    agent = Agent("agent", output=City)
    result = await agent.run("Which city?", provider=ScriptedProvider("a", "b", "c"))
    assert (result.stop, result.text) == (Stop.FAILED, "c")
    with pytest.raises(RunStopped, match="there is no City") as caught:
        _ = result.output
    assert caught.value.result is result
    assert result.to_json()["output"] is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (use("final_answer", name="Rome"), "the output type: founded: Field required"),
        ('{"name": "Rome"}', "the JSON in the words does not fit: founded: Field required"),
        ("It is Rome.", "no answer was given: call final_answer"),
    ],
)
async def test_the_error_of_a_run_without_an_answer_says_what_was_wrong_with_it(
    line: Any, why: str
) -> None:
    agent = Agent("agent", output=City, limits=Limits(output_retries=0))
    result = await agent.run("Which?", provider=ScriptedProvider(line))
    assert (result.error or "").startswith("invalid_output: ")
    assert (result.error or "").endswith(why)
