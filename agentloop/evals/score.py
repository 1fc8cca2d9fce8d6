"""Scores, and the functions that give them."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentloop.errors import DefinitionError
from agentloop.evals.case import Case
from agentloop.log import log
from agentloop.result import RunResult
from agentloop.run import Stop
from agentloop.usage import Usage


@dataclass(frozen=True, slots=True)
class Score:
    """How right an answer is: from 0, wrong, to 1, right; None where that could not be found out.

    ``usage`` is what finding out used, where a model was asked, and ``cost`` what that cost.
    """

    value: float | None
    reason: str = ""
    usage: Usage | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if self.value is None:
            return
        if not 0 <= self.value <= 1:
            raise DefinitionError(f"Score({self.value!r}): a score is from 0 to 1")
        object.__setattr__(self, "value", float(self.value))  # True is 1

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"value": self.value}
        if self.reason:
            data["reason"] = self.reason
        if self.usage:
            data["usage"] = self.usage.to_json()
        if self.cost is not None:
            data["cost"] = self.cost
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Score:
        usage = Usage.from_json(data["usage"]) if "usage" in data else None
        return cls(data["value"], str(data.get("reason", "")), usage, data.get("cost"))


Verdict = Score | float
"""What a scorer gives: a score, or its value alone; True is 1."""

Scorer = Callable[[RunResult[Any], Case], Verdict | Awaitable[Verdict]]
"""Judges the result of a run: any function, sync or async, of the result and its case.

It is called in the event loop, so it must be quick where it is not async. What it raises makes a
score without a value, whose reason says what was raised.
"""


class ExpectingScorer:
    """A scorer that has a name and is of no use for cases that expect nothing."""

    def __init__(self, name: str, score: Callable[[Any, Any], Score]) -> None:
        """``score`` takes the answer, as JSON, and what is expected."""
        self.__name__ = name
        self.of = score

    def __call__(self, result: RunResult[Any], case: Case) -> Score:
        return self.of(answer_of(result), case.expected)

    def __repr__(self) -> str:
        return f"{self.__name__}()"


def named(scorers: Sequence[Scorer] | Mapping[str, Scorer]) -> dict[str, Scorer]:
    """The scorers by name. Raises :class:`DefinitionError` where two have the same one."""
    if isinstance(scorers, Mapping):
        return dict(scorers)
    found: dict[str, Scorer] = {}
    for scorer in scorers:
        name = getattr(scorer, "__name__", type(scorer).__name__)
        if name in found:
            raise DefinitionError(f"two scorers are called {name!r}: name them, {{name: scorer}}")
        found[name] = scorer
    return found


def check_expectations(scorers: Mapping[str, Scorer], cases: Sequence[Case]) -> None:
    """Raises :class:`DefinitionError` where a scorer needs an expectation and a case has none."""
    for name, scorer in scorers.items():
        for case in cases:
            if isinstance(scorer, ExpectingScorer) and case.expected is None:
                raise DefinitionError(
                    f"case {case.id!r} expects nothing, and the scorer {name} needs what is "
                    "expected"
                )


async def score_all(
    scorers: Mapping[str, Scorer], result: RunResult[Any], case: Case
) -> dict[str, Score]:
    """The score of each scorer. A run that failed gives 0 without asking any of them."""
    if result.stop in (Stop.FAILED, Stop.DENIED):
        return {name: Score(0.0, f"the run failed: {result.error}") for name in scorers}
    return {name: await _score(name, scorer, result, case) for name, scorer in scorers.items()}


async def _score(name: str, scorer: Scorer, result: RunResult[Any], case: Case) -> Score:
    try:
        verdict = scorer(result, case)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        return verdict if isinstance(verdict, Score) else Score(float(verdict))
    except Exception as error:  # noqa: BLE001  the author's bug must not end the others
        log().error("scorer_failed", scorer=name, case=case.id, exc_info=error)
        return Score(None, f"the scorer failed: {type(error).__name__}: {error}")


def answer_of(result: RunResult[Any]) -> Any:
    """The answer as JSON: a text, or the typed answer, None where there is none."""
    if result.run.definition.output is None:
        return result.text
    return result.run.answer[0] if result.run.answer else None
