"""The tests of typed answers that every provider passes, a part of
:class:`~agentloop.testing.provider_contract.ProviderContract`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Protocol

import pytest
from mcp_types import TextContent, ToolChoice
from pydantic import BaseModel, Field

from agentloop.agent import Agent
from agentloop.output import ANSWER_TOOL, Output
from agentloop.provider import Provider
from agentloop.result import RunResult
from agentloop.run import Stop
from agentloop.testing.asks import ask, blocks_of, offer, user, uses_of
from agentloop.testing.backend import Call, Line, Says, described
from agentloop.tools import Tool, tool
from agentloop.usage import Limits


class Verdict(BaseModel):
    """What is thought of a city."""

    city: str
    score: Annotated[int, Field(ge=0, le=10)]
    note: str | None = None


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: dict[str, int]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

ANSWERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "number": (int, {"result": 7}),
    "list": (list[str], {"result": ["a", "ü"]}),
    "any names": (dict[str, int], {"result": {"a": 1}}),
    "anything": (Any, {"result": None}),
    "pair": (tuple[int, str], {"result": [1, "a"]}),
    "fields": (Verdict, {"city": "Oslo", "score": 9, "note": None}),
    "holds itself": (Tree, {"name": "a", "children": [{"name": "b", "children": []}]}),
    "one of two": (Cat | None, {"result": {"kind": "cat", "lives": 8}}),
    "told apart": (list[Pet], {"result": [{"kind": "dog", "tricks": {"sit": 1}}]}),
}
"""Types of answers, and an answer of each as the model gives it. Not all have a schema that an API
can hold a model to."""


class Scripted(Protocol):
    """What plays the model: says its script, and keeps what it was asked."""

    features: ClassVar[frozenset[str]]

    def says(self, *lines: Line) -> None: ...


class TypedAnswerContract:
    """What holds for the typed answers of every provider."""

    @pytest.mark.parametrize(("output", "answer"), ANSWERS.values(), ids=ANSWERS)
    async def test_an_answer_comes_as_the_use_of_its_tool(
        self, backend: Scripted, subject: Provider, output: Any, answer: dict[str, Any]
    ) -> None:
        """However the API made the model answer, and also where nothing else could come back."""
        tool = Output(output).tool
        backend.says(Says(thinking="hm", calls=(Call(ANSWER_TOOL, answer),)))
        must = ToolChoice(mode="required")
        for tools, choice in (([*offer("a"), tool], None), ([tool], None), ([tool], must)):
            reply = await subject.sample(ask(user("go"), tools=tools, tool_choice=choice))
            assert [block.type for block in blocks_of(reply)] == ["tool_use"]
            assert [(use.name, use.input) for use in uses_of(reply)] == [(ANSWER_TOOL, answer)]
            assert uses_of(reply)[0].id
            assert reply.stop_reason == "toolUse"

    async def test_words_in_place_of_an_answer_stay_words(
        self, backend: Scripted, subject: Provider
    ) -> None:
        only = [Output(Verdict).tool]
        for text in ("I would rather not.", '{"city": "Os', '["Oslo"]'):
            backend.says(Says(text=text))
        for text in ("I would rather not.", '{"city": "Os', '["Oslo"]'):
            request = ask(user("go"), tools=only, tool_choice=ToolChoice(mode="required"))
            assert blocks_of(await subject.sample(request)) == [TextContent(text=text)]

    async def test_a_typed_run_has_the_transcript_that_it_has_elsewhere(
        self, backend: Scripted, subject: Provider
    ) -> None:
        backend.says(
            Says(thinking="look", text="Let me look.", calls=(Call("look"),)),
            Says(text="It is Oslo, I think."),
            Says(thinking="typed", calls=(Call(ANSWER_TOOL, _verdict(99)),)),
            Says(thinking="lower", calls=(Call(ANSWER_TOOL, _verdict(9)),)),
        )
        result = await _judge(_look).run("Which city?", provider=subject)
        assert (result.stop, result.output) == (Stop.DONE, Verdict(city="Oslo", score=9))
        assert _shape(result) == [
            "user: text",
            "assistant: text, look",
            "user: result",
            "assistant: text",
            "user: text",
            "assistant: final_answer",
            "user: error",
            "assistant: final_answer",
            "user: result",
        ]

    async def test_a_typed_run_without_tools_mends_its_answer(
        self, backend: Scripted, subject: Provider
    ) -> None:
        """Every ask after the first is for the answer alone."""
        backend.says(
            Says(thinking="hm", text="It is Oslo."),
            Says(thinking="typed", calls=(Call(ANSWER_TOOL, _verdict(11)),)),
            Says(thinking="lower", calls=(Call(ANSWER_TOOL, _verdict(10)),)),
        )
        result = await _judge().run("Which city?", provider=subject)
        assert (result.stop, result.output) == (Stop.DONE, Verdict(city="Oslo", score=10))
        assert _shape(result)[3:] == [
            "assistant: final_answer",
            "user: error",
            "assistant: final_answer",
            "user: result",
        ]
        ids = [u.id for m in result.messages for u in m.content_as_list if u.type == "tool_use"]
        assert len(set(ids)) == 2

    async def test_the_last_ask_of_a_typed_run(self, backend: Scripted, subject: Provider) -> None:
        backend.says(
            Says(thinking="look", calls=(Call("look"),)),
            Says(thinking="now", calls=(Call(ANSWER_TOOL, _verdict(9)),)),
        )
        agent = _judge(_look, limits=Limits(steps=2))
        result = await agent.run("Which city?", provider=subject)
        assert (result.stop, result.output) == (Stop.STEPS, Verdict(city="Oslo", score=9))
        assert _shape(result)[-2:] == ["assistant: final_answer", "user: result"]


@tool(name="look", description=described("look"))
def _look() -> str:
    return "fjords"


def _judge(*tools: Tool, limits: Limits | None = None) -> Agent[Verdict]:
    return Agent("judge", "Judge cities.", tools=tools, output=Verdict, limits=limits)


def _verdict(score: int) -> dict[str, Any]:
    return {"city": "Oslo", "score": score, "note": None}


def _shape(result: RunResult[Any]) -> list[str]:
    """Who said what kinds of blocks."""
    return [
        f"{message.role}: {', '.join(map(_kind, message.content_as_list))}"
        for message in result.messages
    ]


def _kind(block: Any) -> str:
    if block.type == "tool_use":
        return block.name
    if block.type == "tool_result":
        return "error" if block.is_error else "result"
    return block.type
