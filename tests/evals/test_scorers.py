"""What the built-in scorers call right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types import CreateMessageRequestParams
from pydantic import BaseModel

from agentloop import Agent
from agentloop.errors import DefinitionError, OverloadedError
from agentloop.evals import Case, Price, Score, contains, evaluate, exact, json_match, judge, regex
from agentloop.evals.score import ExpectingScorer
from agentloop.usage import Usage
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use

Scorer = ExpectingScorer


def value(scorer: Scorer, answer: Any, expected: Any) -> float | None:
    return scorer.of(answer, expected).value


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("Oslo", "oslo", True),
        ("  Oslo\n", "Oslo", True),
        ("New   York", "new york", True),
        ("Oslo.", "Oslo", False),
        ("Paris", ["Lyon", "Paris"], True),
        ("Rome", ["Lyon", "Paris"], False),
        ("4", 4, True),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, True),
        (None, "x", False),
    ],
)
def test_exact(answer: Any, expected: Any, right: bool) -> None:
    assert value(exact(), answer, expected) == right


def test_exact_can_mind_capitals() -> None:
    assert value(exact(ignore_case=False), "oslo", "Oslo") == 0


@pytest.mark.parametrize(
    ("answer", "expected", "share"),
    [
        ("It is Oslo, of course.", "oslo", 1),
        ("It is 14.", "4", 0),
        ("It is 4.", 4, 1),
        ("concatenate", "cat", 0),
        ("f(x) = 2", "f(x)", 1),
        ("agentloop/usage.py:31", ["usage.py", "31"], 1),
        ("agentloop/usage.py:31", ["usage.py", "16"], 0.5),
        ("a.b", "a?b", 0),
        ("New\nYork", "new york", 1),
    ],
)
def test_contains(answer: str, expected: Any, share: float) -> None:
    assert value(contains(), answer, expected) == share


def test_contains_can_look_inside_words() -> None:
    assert value(contains(whole_words=False), "concatenate", "cat") == 1


def test_contains_says_what_is_missing() -> None:
    score = contains().of("only a", ["a", "b", "c"])
    assert score.value == pytest.approx(1 / 3)
    assert score.reason == '"b" is missing; "c" is missing'


@pytest.mark.parametrize(
    ("answer", "expected", "share"),
    [
        ("Call +47 22 34", r"\+47( \d\d)+", 1),
        ("one\ntwo", "^TWO$", 1),
        ("one", ["one", "two"], 0.5),
        ({"a": 1}, '"a": 1', 1),
    ],
)
def test_regex(answer: Any, expected: Any, share: float) -> None:
    assert value(regex(), answer, expected) == share


@pytest.mark.parametrize(
    ("answer", "expected", "share"),
    [
        ('{"a": 1, "b": [1, 2]}', {"a": 1}, 1),
        ('```json\n{"a": 1}\n```', {"a": 1}, 1),
        ({"a": 1.0}, {"a": 1}, 1),
        ({"a": 1.1}, {"a": 1}, 0),
        ({"a": True}, {"a": 1}, 0),
        ({"a": 1, "b": 3}, {"a": 1, "b": 2}, 0.5),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, 0.5),
        ([1, 2, 3], [1, 2], pytest.approx(2 / 3)),
        ([1], [1, 2], 0.5),
        ({"a": None}, {"a": None}, 1),
        ({}, {"a": None}, 0),
        ("no JSON", {"a": 1}, 0),
        ([], [], 1),
        ([1], [], 0),
    ],
)
def test_json_match(answer: Any, expected: Any, share: float) -> None:
    assert value(json_match(), answer, expected) == share


def test_json_match_says_where_it_is_wrong() -> None:
    score = json_match().of({"a": {"b": 2}}, {"a": {"b": 1, "c": 3}})
    assert score.reason == "answer.a.b is 2, not 1; answer.a.c is missing"


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_score_is_from_0_to_1(wrong: float) -> None:
    with pytest.raises(DefinitionError, match="from 0 to 1"):
        Score(wrong)


async def test_a_scorer_that_needs_what_is_expected_says_which_case_has_nothing() -> None:
    cases = [Case("a", "x"), Case("b", id="odd")]
    with pytest.raises(DefinitionError, match="case 'odd' expects nothing"):
        await evaluate(Agent("a"), cases, providers=ScriptedProvider("x"), scorers=[exact()])


# --- a model as judge ----------------------------------------------------------------------------


class Judging:
    """Plays the judge: right where the answer says what is expected."""

    name = "judging"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        question = request.messages[0].content_as_list[0]
        assert question.type == "text"
        given = json.loads(question.text)
        self.asked.append(given)
        grade = "right" if given["answer"] == given.get("expected answer") else "partly"
        usage = Usage(asks=1, input_tokens=100, output_tokens=10)
        return reply(use("final_answer", id="g", grade=grade, reason="So."), usage=usage)


async def test_a_judge_grades_with_a_reason_and_what_it_used_counts() -> None:
    model = Judging()
    report = await evaluate(
        Agent("a"),
        [Case("1?", "one"), Case("2?", "two")],
        providers=ScriptedProvider("one", repeat=True),
        scorers=[judge("Is it right?", provider=model, price=Price(10, 100))],
        concurrency=1,
    )
    first, second = report.trials
    assert (first.scores["judge"].value, second.scores["judge"].value) == (1, 0.5)
    assert first.scores["judge"].reason == "So."
    assert model.asked[0] == {"question": "1?", "answer": "one", "expected answer": "one"}
    assert first.tokens == first.usage.total_tokens + 110
    assert first.cost == pytest.approx((100 * 10 + 10 * 100) / 1e6)


async def test_a_judge_that_cannot_be_asked_gives_no_score() -> None:
    report = await evaluate(
        Agent("a"),
        [Case("1?", "one")],
        providers=ScriptedProvider("one"),
        scorers=[judge(provider=ScriptedProvider(OverloadedError("busy"), repeat=True))],
    )
    (trial,) = report.trials
    assert trial.value is None
    assert trial.failed
    assert "overloaded: busy" in trial.scores["judge"].reason
    assert report.summaries[0].score is None


class City(BaseModel):
    city: str
    people: int


async def test_a_typed_answer_is_scored_as_json() -> None:
    agent = Agent("a", output=City)
    model = ScriptedProvider(use("final_answer", city="Oslo", people=717710))
    report = await evaluate(
        agent, [Case("?", {"people": 717710})], providers=model, scorers=[json_match()]
    )
    assert report.trials[0].value == 1
    assert report.trials[0].answer == {"city": "Oslo", "people": 717710}
